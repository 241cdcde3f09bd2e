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
from hashlib import sha256
from typing import NamedTuple

from composefs_ext import dump
from composefs_ext.errors import CorruptError, FormatError, NotFoundError, TooLargeError
from composefs_ostree.fileheader import head_size, parse_head
from composefs_ostree.names import ObjectType
from composefs_ostree.objects import Dirmeta, Dirtree, Xattrs, parse_commit, parse_dirmeta, parse_dirtree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import BinaryIO

    from composefs_ext import Core
    from composefs_ostree.commit_stream import CommitStream, Entry
    from composefs_ostree.objects import Commit
    from composefs_ostree.part import Part

__all__ = ["Tree", "commit_bytes", "load", "load_commit", "stage_dump", "write_dump"]

MAX_INODES = 10_000_000
MAX_DEPTH = 2000
MAX_DUMP = 256 << 20
"""Inodes, nested directories and, unless the core says otherwise, bytes of text of one tree."""

_WRITE_SIZE = 1 << 20
_REMEDY = "the repository is damaged: run cfsctl fsck, remove the stream's refs, run cfsctl gc and pull again"


class Tree(NamedTuple):
    """A commit with all that it is made of, by object id."""

    commit: Commit
    trees: dict[bytes, Dirtree]
    metas: dict[bytes, Dirmeta]
    files: dict[bytes, Entry]

    def grafted(self, part: Part) -> Tree:
        """Return the tree of what a part wants, from one with all that is below its paths."""
        trees = _reachable(part.root, {**self.trees, **part.trees})
        return self._replace(commit=self.commit._replace(root_tree=part.root), trees=trees)


def _reachable(root: bytes, trees: dict[bytes, Dirtree]) -> dict[bytes, Dirtree]:
    """Leave out what a tree had for another reason, such as a directory on the way that is also below."""
    found: dict[bytes, Dirtree] = {}
    pending = [root]
    while pending:
        tree_id = pending.pop()
        if tree_id not in found:
            found[tree_id] = trees[tree_id]
            pending += [subtree_id for _, subtree_id, _ in trees[tree_id].directories]
    return found


def load_commit(stream: CommitStream) -> Commit:
    """Take the commit object out of its stream; raise CorruptError or FormatError."""
    return parse_commit(commit_bytes(stream))


def commit_bytes(stream: CommitStream) -> bytes:
    """Take the commit object's bytes out of its stream, checked against its id."""
    return _metadata(stream, ObjectType.COMMIT, stream.commit)


def load(stream: CommitStream) -> Tree:
    """Take a commit with its tree, or what is here of it, out of its stream.

    Raises CorruptError or FormatError, and NotFoundError if only the commit object is here.
    """
    commit = load_commit(stream)
    if stream.subpaths is None:
        return _load_below(
            stream, commit, [(ObjectType.DIRMETA, commit.root_meta), (ObjectType.DIRTREE, commit.root_tree)]
        )
    if not stream.subpaths:
        raise NotFoundError(
            f"of commit {stream.commit.hex()} only the commit object is here",
            hint="pull it again without --commit-metadata-only",
            subject=stream.commit.hex(),
        )
    from composefs_ostree.part import find_part

    part = find_part(commit, stream.subpaths, lambda kind, object_id: _metadata(stream, kind, object_id))
    return _load_below(stream, commit, part.roots, part.files).grafted(part)


def _load_below(
    stream: CommitStream, commit: Commit, roots: Iterable[tuple[ObjectType, bytes]], files: Iterable[bytes] = ()
) -> Tree:
    tree = Tree(commit, {}, {}, {file_id: _object(stream, ObjectType.FILE, file_id) for file_id in files})
    wanted = []
    for kind, object_id in roots:
        if kind is ObjectType.DIRTREE:
            wanted.append(object_id)
        else:
            tree.metas[object_id] = parse_dirmeta(_metadata(stream, kind, object_id))
    while wanted:
        tree_id = wanted.pop()
        if tree_id in tree.trees:
            continue
        listing = tree.trees[tree_id] = parse_dirtree(_metadata(stream, ObjectType.DIRTREE, tree_id))
        for _, file_id in listing.files:
            if file_id not in tree.files:
                tree.files[file_id] = _object(stream, ObjectType.FILE, file_id)
        for _, subtree_id, meta_id in listing.directories:
            wanted.append(subtree_id)
            if meta_id not in tree.metas:
                tree.metas[meta_id] = parse_dirmeta(_metadata(stream, ObjectType.DIRMETA, meta_id))
    return tree


def _metadata(stream: CommitStream, kind: ObjectType, object_id: bytes) -> bytes:
    entry = _object(stream, kind, object_id)
    if entry.content is not None or sha256(entry.data).digest() != object_id:
        raise CorruptError(
            f"{_where(stream)}: {kind.name.lower()} {object_id.hex()} has another checksum", hint=_REMEDY
        )
    return entry.data


def _object(stream: CommitStream, kind: ObjectType, object_id: bytes) -> Entry:
    entry = stream.get(object_id)
    if entry is None:
        raise CorruptError(f"{_where(stream)} lacks {kind.name.lower()} {object_id.hex()}", hint=_REMEDY)
    return entry


def _where(stream: CommitStream) -> str:
    return f"the stream of commit {stream.commit.hex()}"


def stage_dump(core: Core, tree: Tree, *, keep_nul: bool) -> str:
    """Write a tree to a new staged file and return its name; see :func:`write_dump`."""
    name = core.staging.new_name("dump")
    with core.staging.create(name) as file:
        write_dump(file, tree, keep_nul=keep_nul, limit=core.limits.get("dump_bytes", MAX_DUMP))
    return name


def write_dump(out: BinaryIO, tree: Tree, *, keep_nul: bool, limit: int = MAX_DUMP) -> None:
    """Write the lines of a tree, each directory before what is in it; raise TooLargeError or FormatError.

    Every file that is not in its entry's data must have the id of its content there.  ``limit`` is how many bytes the
    core takes; it bounds our memory too, as each file's first path is kept, and deep directories make long paths.
    """
    links = _count_links(tree)
    written = 0
    lines: list[str] = []
    size = 0
    for line in _lines(tree, links, keep_nul):
        lines.append(line)
        size += len(line)
        if size >= _WRITE_SIZE:
            written += size
            if written > limit:
                raise TooLargeError(
                    f"the description of the commit's tree, a line for each file, is larger than {limit} bytes",
                    hint="it has too many files, too long paths or too many attributes for one image",
                )
            out.write("".join(lines).encode("ascii"))
            lines = []
            size = 0
    out.write("".join(lines).encode("ascii"))


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


def _lines(tree: Tree, links: dict[bytes, int], keep_nul: bool) -> Iterator[str]:
    xattr_text: dict[Xattrs, str] = {(): ""}

    def xattrs(pairs: Xattrs) -> str:
        text = xattr_text.get(pairs)
        if text is None:
            named = [(name + b"\0", value) for name, value in pairs] if keep_nul else pairs
            text = xattr_text[pairs] = dump.xattrs(named).decode("ascii")
        return text

    meta_fields = {
        meta_id: (f" 0 {meta.mode:o} ", f" {meta.uid} {meta.gid} 0 0.0 - - -{xattrs(meta.xattrs)}\n")
        for meta_id, meta in tree.metas.items()
    }
    files = tree.files
    common: dict[bytes, _Common] = {}
    first_names: dict[bytes, str] = {}
    before, behind = meta_fields[tree.commit.root_meta]
    root = tree.trees[tree.commit.root_tree]
    yield f"/{before}{2 + len(root.directories)}{behind}"
    stack = [("/", root)]
    while stack:
        directory, listing = stack.pop()
        # A line for every file of the commit, however few have changed: this loop is half of the text's time.
        for name, (_, file_id) in zip(_escaped(listing.files), listing.files, strict=True):
            count = links[file_id]
            if count > 1:
                first = first_names.get(file_id)
                if first is not None:
                    yield f"{directory}{name} 0 @120000 1 0 0 0 0.0 {first} - -\n"
                    continue
                first_names[file_id] = directory + name
            data, content = files[file_id]
            end = len(data) if content is not None else head_size(data)
            # Files of one directory differ in size and content only: the rest of a head is worth keeping.
            key = data[:8] + data[16:end]
            fields = common.get(key)
            if fields is None:
                fields = common[key] = _common(data, xattrs)
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
        for name, (_, subtree_id, meta_id) in zip(_escaped(listing.directories), listing.directories, strict=True):
            path = directory + name
            subtree = tree.trees[subtree_id]
            before, behind = meta_fields[meta_id]
            yield f"{path}{before}{2 + len(subtree.directories)}{behind}"
            stack.append((path + "/", subtree))


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
