"""A commit's tree as composefs-dump(5) lines.

The tree is a graph: equal directories are one dirtree, so that a few objects can stand for more inodes than there are
atoms.  The size of the tree is therefore counted on the graph before anything is written.  Equal files, which are one
object, become hard links.  The times of everything are 0, because ostree keeps none.

ostree's names of extended attributes end with a NUL, which is not a part of the name.  composefs-rs 0.9.0 keeps it in
its images, where no label or capability is found under such a name; ``keep_nul`` does the same, to meet an image id
made there.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import NamedTuple

from composefs_ext import dump
from composefs_ext.errors import FormatError, TooLargeError
from composefs_ostree.formats.fileheader import head_size, parse_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import BinaryIO

    from composefs_ext import Core
    from composefs_ostree.formats.objects import Dirtree, Xattrs
    from composefs_ostree.tree import Tree

__all__ = ["MAX_DUMP", "DumpText", "stage_dump", "write_dump"]

MAX_INODES = 10_000_000
MAX_DEPTH = 2000
MAX_DUMP = 256 << 20
"""Inodes, nested directories and, unless the core says otherwise, bytes of text of one tree."""

_WRITE_SIZE = 1 << 20

_EARLY_DIRECTORIES = 32
_EARLY_BYTES = 32 << 20
"""What is made in one step before it is written, and how many bytes in all: they are kept in memory until then."""


def stage_dump(core: Core, tree: Tree, *, keep_nul: bool) -> str:
    """Write a tree to a new staged file and return its name; see :class:`DumpText`."""
    return DumpText(tree, keep_nul=keep_nul).stage(core)


def write_dump(out: BinaryIO, tree: Tree, *, keep_nul: bool, limit: int = MAX_DUMP) -> None:
    """Write the lines of a tree; see :class:`DumpText`."""
    DumpText(tree, keep_nul=keep_nul).write(out, limit)


class DumpText:
    """The lines of a tree, each directory before what is in it.

    They are written when all files are known.  Whoever waits for the last of them may have made text of directories
    whose files are there already, with ``prepare``.  Every file that is not in its entry's data must have the id of its
    content there.
    """

    def __init__(self, tree: Tree, *, keep_nul: bool) -> None:
        """``tree`` has all directories; raise TooLargeError if it stands for too many inodes."""
        self._tree = tree
        self._links = _count_links(tree)
        self._first_names: dict[bytes, str] = {}
        self._keep_nul = keep_nul
        self._xattr_text: dict[Xattrs, str] = {(): ""}
        self._common: dict[bytes, _Common] = {}
        self._metas = {
            meta_id: (f" 0 {meta.mode:o} ", f" {meta.uid} {meta.gid} 0 0.0 - - -{self._xattrs(meta.xattrs)}\n")
            for meta_id, meta in tree.metas.items()
        }
        before, behind = self._metas[tree.commit.root_meta]
        root = tree.trees[tree.commit.root_tree]
        self._early: list[str | tuple[str, Dirtree]] = [f"/{before}{2 + len(root.directories)}{behind}"]
        self._early_left = _EARLY_BYTES
        self._stack = [("/", root)]

    def prepare(self) -> bool:
        """Make the text of some directories all of whose files are known; tell whether there is more to do."""
        known = self._tree.files
        if not self._early_left:
            return False
        for _ in range(min(_EARLY_DIRECTORIES, len(self._stack))):
            directory, listing = self._stack[-1]
            is_known = all(file_id in known for _, file_id in listing.files)
            below: list[tuple[str, Dirtree]] = []
            files = self._files(directory, listing) if is_known else iter(())
            text = _joined(chain(files, self._below(directory, listing, below)), self._early_left)
            if text is None:
                self._early_left = 0
                return False
            self._early_left -= len(text)
            self._stack.pop()
            self._stack += below
            if not is_known:
                self._note_first_names(directory, listing)
                self._early.append((directory, listing))
            self._early.append(text)
        return bool(self._stack)

    def stage(self, core: Core) -> str:
        """Write the text to a new staged file and return its name; raise what ``write`` does."""
        name = core.staging.new_name("dump")
        with core.staging.create(name) as file:
            self.write(file, core.limits.get("dump_bytes", MAX_DUMP))
        return name

    def write(self, out: BinaryIO, limit: int = MAX_DUMP) -> None:
        """Write the text; raise TooLargeError or FormatError.

        ``limit`` is how many bytes the core takes; it bounds our memory too, as the first path of a file with several
        is kept, and deep directories make long paths.
        """
        written = size = 0
        texts: list[str] = []
        for text in chain.from_iterable(self._texts()):
            texts.append(text)
            size += len(text)
            if size >= _WRITE_SIZE:
                written += size
                if written > limit:
                    raise TooLargeError(
                        f"the description of the commit's tree, a line for each file, is larger than {limit} bytes",
                        hint="it has too many files, too long paths or too many attributes for one image",
                    )
                out.write("".join(texts).encode("ascii"))
                texts = []
                size = 0
        out.write("".join(texts).encode("ascii"))

    def _texts(self) -> Iterator[Iterable[str]]:
        """Yield what each directory has of the text, lines or more at once."""
        for made in self._early:
            yield (made,) if isinstance(made, str) else self._files(*made)
        self._early = []
        while self._stack:
            directory, listing = self._stack.pop()
            yield self._files(directory, listing)
            yield self._below(directory, listing, self._stack)

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
            end = len(data) if content is not None else head_size(data)
            # Files of one directory differ in size and content only: the rest of a head is worth keeping.
            key = data[:8] + data[16:end]
            fields = commons.get(key)
            if fields is None:
                fields = commons[key] = _common(data, self._xattrs)
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
        return text


def _count_links(tree: Tree) -> dict[bytes, int]:
    """Count the names of every file in the whole tree, on the graph; raise TooLargeError when the tree is too large."""
    names: dict[bytes, int] = dict.fromkeys(tree.trees, 0)
    depth: dict[bytes, int] = dict.fromkeys(tree.trees, 0)
    once: list[bytes] = []
    more: list[tuple[int, Dirtree]] = []
    names[tree.commit.root_tree] = 1
    inodes = 1
    for tree_id in _parents_first(tree):
        count = names[tree_id]
        below = depth[tree_id] + 1
        listing = tree.trees[tree_id]
        inodes += count * (len(listing.files) + len(listing.directories))
        if inodes > MAX_INODES or below > MAX_DEPTH:
            raise TooLargeError(
                f"the tree of the commit has more than {MAX_INODES} files or {MAX_DEPTH} nested directories",
                hint="this is how a small malicious commit describes an endless tree",
            )
        if count == 1:
            once += [file_id for _, file_id in listing.files]
        else:
            more.append((count, listing))
        for _, subtree_id, _ in listing.directories:
            names[subtree_id] += count
            depth[subtree_id] = max(depth[subtree_id], below)
    links = Counter(once)  # counts in C what most trees have nothing but
    for count, listing in more:
        for _, file_id in listing.files:
            links[file_id] += count
    return links


def _parents_first(tree: Tree) -> list[bytes]:
    """Return the ids of all dirtrees, each behind all that name it."""
    done: set[bytes] = set()
    order: list[bytes] = []
    stack: list[tuple[bytes, Iterator[tuple[bytes, bytes, bytes]]]] = []

    def enter(tree_id: bytes) -> None:
        done.add(tree_id)
        stack.append((tree_id, iter(tree.trees[tree_id].directories)))

    enter(tree.commit.root_tree)
    while stack:
        tree_id, rest = stack[-1]
        for _, subtree_id, _ in rest:
            if subtree_id not in done:
                enter(subtree_id)
                break
        else:
            stack.pop()
            order.append(tree_id)
    order.reverse()
    return order


def _joined(lines: Iterable[str], most: int) -> str | None:
    """Return lines as one text, None if it has more bytes: small objects can stand for a long one."""
    kept = []
    for line in lines:
        most -= len(line)
        if most < 0:
            return None
        kept.append(line)
    return "".join(kept)


def _escaped(rows: Sequence[tuple[bytes, ...]]) -> list[str]:
    """Return the escaped names of a directory's entries; a slash, which none has, is never a part of an escape."""
    return dump.escape(b"/".join([row[0] for row in rows])).decode("ascii").split("/") if rows else []


def _optional(data: bytes | None) -> str:
    return dump.optional(data).decode("ascii")


class _Common(NamedTuple):
    """What files with equal heads, but for the size, have in common in their lines; ``target`` of symlinks."""

    mode: str
    owner: str
    target: bytes
    xattrs: str


def _common(data: bytes, xattrs: Callable[[Xattrs], str]) -> _Common:
    head = parse_head(data[: head_size(data)])
    return _Common(f"{head.mode:o}", f"{head.uid} {head.gid} 0 0.0", head.target, xattrs(head.xattrs) + "\n")
