"""A commit's tree as composefs-dump(5) lines.

How large a tree is, and which files have several names, is counted before anything is written
(:mod:`composefs_ostree.held.links`).  Equal files, which are one object, become hard links.  The times of everything
are 0, because ostree keeps none.

ostree's names of extended attributes end with a NUL, which is not a part of the name.  composefs-rs 0.9.0 keeps it in
its images, where no label or capability is found under such a name; ``keep_nul`` does the same, to meet an image id
made there.
"""

from __future__ import annotations

from composefs_ext import dump
from composefs_ext.drafts import Draft
from composefs_ext.errors import FormatError
from composefs_ostree.formats.fileheader import head_size, parse_head
from composefs_ostree.held.links import count_links, too_large

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    from composefs_ext import Core
    from composefs_ostree.formats.objects import Dirtree, Xattrs
    from composefs_ostree.held.tree import Tree

__all__ = ["DumpText", "check_text", "draft_dump", "dump_limit", "is_image_of"]

_MAX_DUMP = 256 << 20
"""Bytes of text of one tree, unless the core says otherwise."""

_WRITE_SIZE = 1 << 18
"""Characters that are written at a time."""

_LINE = 2048
"""More characters than a line has without paths of directories, attributes, and what comes from its file alone."""

_EARLY_DIRECTORIES = 32
"""How many are made in one step while something else is waited for: about a millisecond."""

if TYPE_CHECKING:

    class Output(Protocol):
        """Where the text goes: a file, or a draft."""

        def write(self, data: bytes, /) -> object:
            """Write whole lines."""


def dump_limit(core: Core) -> int:
    """Return how many bytes of text of one tree the core takes."""
    return core.limits.get("dump_bytes", _MAX_DUMP)


def draft_dump(core: Core, tree: Tree, *, keep_nul: bool) -> tuple[str, str | None]:
    """Write a tree to a new draft; return what ``Core.image_put`` and the like take.  See :class:`DumpText`."""
    draft = Draft(core)
    DumpText(tree, draft, keep_nul=keep_nul, limit=dump_limit(core)).finish()
    return draft.finish()


class _Nowhere:
    def write(self, _: bytes) -> None:
        pass


def check_text(core: Core, tree: Tree) -> None:
    """Raise FormatError or TooLargeError where the text of a tree cannot be made."""
    DumpText(tree, _Nowhere(), keep_nul=False, limit=dump_limit(core)).finish()


def is_image_of(core: Core, tree: Tree, image: str, *, keep_nul: bool | None = None) -> bool:
    """Tell whether an image is that of a tree, as ``keep_nul`` says (:class:`DumpText`); None: either way."""
    ways = (False, True) if keep_nul is None else (keep_nul,)
    return any(core.image_digest(*draft_dump(core, tree, keep_nul=way)).result()["id"] == image for way in ways)


class DumpText:
    """The lines of a tree, each directory before what is in it.

    ``finish`` writes them when all files are known.  Whoever waits for the last of them may have written text of
    directories whose files are there already, with ``prepare``.  Every file that is not in its entry's data must have
    the id of its content there.
    """

    def __init__(self, tree: Tree, out: Output, *, keep_nul: bool, limit: int = _MAX_DUMP) -> None:
        """``tree`` has all directories; raise TooLargeError if it stands for too many inodes.

        ``limit`` is how many bytes the core takes; it bounds our memory too, as the first path of a file with several
        is kept, and deep directories make long paths.
        """
        self._tree = tree
        self._out = out
        self._limit = limit
        self._size = 0
        self._links = count_links(tree, limit)
        self._first_names: dict[bytes, str] = {}
        self._keep_nul = keep_nul
        self._xattr_text: dict[Xattrs, str] = {(): ""}
        self._longest = self._deepest = 0
        self._common: dict[bytes, tuple[str, str, bytes, str]] = {}
        self._metas = {
            meta_id: (f" 0 {meta.mode:o} ", f" {meta.uid} {meta.gid} 0 0.0 - - -{self._xattrs(meta.xattrs)}\n")
            for meta_id, meta in tree.metas.items()
        }
        before, behind = self._metas[tree.commit.root_meta]
        root = tree.trees[tree.commit.root_tree]
        self._lines = [f"/{before}{2 + len(root.directories)}{behind}"]
        self._held = 0
        self._stack = [("/", root)]
        self._late: list[tuple[str, Dirtree]] = []

    def prepare(self) -> bool:
        """Write the text of some directories; tell whether there is more to do.

        The files of one of which some are not known yet are left for the end.  Raises what ``finish`` does.
        """
        known = self._tree.files
        for _ in range(min(_EARLY_DIRECTORIES, len(self._stack))):
            directory, listing = self._stack.pop()
            if all(file_id in known for _, file_id in listing.files):
                self._add(directory, listing.files, self._files(directory, listing))
            else:
                self._note_first_names(directory, listing)
                self._late.append((directory, listing))
            self._add(directory, listing.directories, self._below(directory, listing, self._stack))
        return bool(self._stack)

    def finish(self) -> None:
        """Write the rest; raise TooLargeError or FormatError."""
        while self._stack:
            directory, listing = self._stack.pop()
            self._add(directory, listing.files, self._files(directory, listing))
            self._add(directory, listing.directories, self._below(directory, listing, self._stack))
        for directory, listing in self._late:
            self._add(directory, listing.files, self._files(directory, listing))
        self._late = []
        self._write()

    def _add(self, directory: str, rows: Sequence[object], lines: Iterator[str]) -> None:
        """Add the lines for rows of a directory: at once, unless they may have so many characters that memory matters.

        Small objects can stand for long lines: each has the directory's path, perhaps that of another one, which a hard
        link leads to, and attributes that directories have in common.
        """
        if not rows:
            return
        self._deepest = max(self._deepest, len(directory))
        most = len(rows) * (2 * self._deepest + self._longest + _LINE)
        for text in ("".join(lines),) if most < _WRITE_SIZE else lines:
            self._lines.append(text)
            self._held += len(text)
            if self._held >= _WRITE_SIZE:
                self._write()

    def _write(self) -> None:
        self._size += self._held
        if self._size > self._limit:
            raise too_large(self._limit)
        self._out.write("".join(self._lines).encode("ascii"))
        self._lines = []
        self._held = 0

    def _below(self, directory: str, listing: Dirtree, found: list[tuple[str, Dirtree]]) -> Iterator[str]:
        """Yield the lines of the directories in one, and append these to what was ``found``."""
        for name, (_, subtree_id, meta_id) in zip(_escaped(listing.directories), listing.directories, strict=True):
            path = directory + name
            subtree = self._tree.trees[subtree_id]
            before, behind = self._metas[meta_id]
            yield f"{path}{before}{2 + len(subtree.directories)}{behind}"
            found.append((path + "/", subtree))

    def _note_first_names(self, directory: str, listing: Dirtree) -> None:
        """Note the names of files that have several, in a directory whose lines will be made later."""
        for name, (_, file_id) in zip(_escaped(listing.files), listing.files, strict=True):
            if self._links[file_id] > 1:
                self._first_names.setdefault(file_id, directory + name)

    def _files(self, directory: str, listing: Dirtree) -> Iterator[str]:
        """Yield the lines of a directory's files."""
        files, links, commons, first_names = self._tree.files, self._links, self._common, self._first_names
        # A line for every file of the commit, however few have changed: this loop is half of the text's time.
        for name, (_, file_id) in zip(_escaped(listing.files), listing.files, strict=True):
            count = links[file_id]
            if count > 1:
                first = first_names.setdefault(file_id, directory + name)
                if first != directory + name:
                    yield f"{directory}{name} 0 @120000 1 0 0 0 0.0 {first} - -\n"
                    continue
            data, content = files[file_id]
            try:
                end = len(data) if content is not None else head_size(data)
                # Files of one directory differ in size and content only: the rest of a head is worth keeping.
                key = data[:8] + data[16:end]
                fields = commons.get(key)
                if fields is None:
                    fields = commons[key] = _common(data, self._xattrs)
            except FormatError as error:
                raise FormatError(
                    f"file {file_id.hex()}: {error.message}", hint="tell who made the commit, which names it as a file"
                ) from None
            mode, owner, target, attributes = fields
            size = int.from_bytes(data[8:16], "big")
            if target:
                size, rest = len(target), f"{_optional(target)} -"
            elif content is not None:
                yield (
                    f"{directory}{name} {size} {mode} {count} {owner} "
                    f"{content[:2]}/{content[2:]} - {content}{attributes}"
                )
                continue
            elif len(data) - end == size:
                rest = f"- {_optional(data[end:] or None)}"
            else:
                raise FormatError(f"file {file_id.hex()} has {len(data) - end} of its {size} bytes of content")
            yield f"{directory}{name} {size} {mode} {count} {owner} {rest} -{attributes}"

    def _xattrs(self, pairs: Xattrs) -> str:
        text = self._xattr_text.get(pairs)
        if text is None:
            named = [(name + b"\0", value) for name, value in pairs] if self._keep_nul else pairs
            text = self._xattr_text[pairs] = dump.xattrs(named).decode("ascii")
            self._longest = max(self._longest, len(text))
        return text


def _escaped(rows: Sequence[tuple[bytes, ...]]) -> list[str]:
    """Return the escaped names of a directory's entries; a slash, which none has, is never a part of an escape."""
    return dump.escape(b"/".join([row[0] for row in rows])).decode("ascii").split("/") if rows else []


def _optional(data: bytes | None) -> str:
    return dump.optional(data).decode("ascii")


def _common(data: bytes, xattrs: Callable[[Xattrs], str]) -> tuple[str, str, bytes, str]:
    """Return what files with equal heads, but for the size, have in common: mode, owner, target, attributes."""
    head = parse_head(data[: head_size(data)])
    return f"{head.mode:o}", f"{head.uid} {head.gid} 0 0.0", head.target, xattrs(head.xattrs) + "\n"
