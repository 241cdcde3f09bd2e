"""A tree, or a layer's entries, as lines of composefs-dump(5).

The names of an inode are lines of their own: the first one in the order of names has its metadata, the others are hard
links to that.
"""

from __future__ import annotations

import stat
from itertools import islice
from os import makedev

from composefs_ext import dump
from composefs_ext.errors import TooLargeError
from composefs_oci.filesystem import Directory, Node
from composefs_oci.formats.tar import Kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from composefs_ext import Core
    from composefs_oci.formats.tar import Entry
    from composefs_oci.layers.stored import Content

__all__ = ["entry_lines", "stage_tree", "write_tree"]

_MAX_DUMP = 512 << 20
"""Bytes of a tree's text, unless the core says otherwise."""
_LOT = 1000
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)


def stage_tree(core: Core, root: Directory) -> str:
    """Write a tree to a new staged file and return its name.  Raises TooLargeError."""
    name = core.staging.new_name("dump")
    limit = core.limits.get("dump_bytes", _MAX_DUMP)
    with core.staging.create(name) as file:
        write_tree(file, root, limit)
    return name


def write_tree(out: BinaryIO, root: Directory, limit: int = _MAX_DUMP) -> None:
    """Write the lines of a tree in the order of names, directories before what is in them.  Raises TooLargeError."""
    written = 0
    lines = _tree_lines(root)
    while data := b"".join(islice(lines, _LOT)):
        written += len(data)
        if written > limit:
            raise TooLargeError(
                f"the description of the image's tree, a line for each file, is larger than {limit} bytes",
                hint="it has too many files, too long paths or too many attributes for one image",
            )
        out.write(data)


def _tree_lines(root: Directory) -> Iterator[bytes]:
    """One function, not one call a line: 4 µs a file."""
    links = _count_links(root)
    first: dict[Node, bytes] = {}
    yield _line(b"/", root, 2 + _subdirectories(root))
    # Paths are put together from escaped parts, so that each name is escaped once; depth first, without recursion.
    escape = dump.escape
    stack = [(b"/", iter(sorted(root.children.items())))]
    while stack:
        prefix, names = stack[-1]
        for name, node in names:
            path = prefix + escape(name)
            if isinstance(node, Directory):
                yield _line(path, node, 2 + _subdirectories(node))
                stack.append((path + b"/", iter(sorted(node.children.items()))))
                break
            if node in links:
                # In a hard link's line the target is a payload: escaped alike, as it begins with a slash.
                target = first.setdefault(node, path)
                if target is not path:
                    yield b"%b 0 @%o 1 0 0 0 0.0 %b - -\n" % (path, node.mode, target)
                    continue
            yield _line(path, node, links.get(node, 1))
        else:
            stack.pop()


def _count_links(root: Directory) -> dict[Node, int]:
    """Return how many names each inode has that has more than one."""
    seen: set[Node] = set()
    links: dict[Node, int] = {}
    pending = [root]
    for directory in pending:
        for node in directory.children.values():
            if isinstance(node, Directory):
                pending.append(node)
            elif node in seen:
                links[node] = links.get(node, 1) + 1
            else:
                seen.add(node)
    return links


def _subdirectories(directory: Directory) -> int:
    return sum(isinstance(node, Directory) for node in directory.children.values())


def _line(path: bytes, node: Node, nlink: int) -> bytes:
    """Return the line of an inode; its path is escaped already."""
    mode, size, content = node.mode, node.size, node.content
    payload, text, digest, rdev = b"-", b"-", b"-", 0
    kind = mode & 0o170000
    if kind == stat.S_IFREG:
        if isinstance(content, str):
            digest = content.encode()
            payload = digest[:2] + b"/" + digest[2:]
        elif content:
            text = dump.optional(content)
    elif kind == stat.S_IFLNK:
        size, payload = len(node.target), dump.optional(node.target)
    elif kind in _DEVICES:
        rdev = makedev(*node.device)
    return b"%b %d %o %d %d %d %d %d.%d %b %b %b%b\n" % (
        path,
        size,
        mode,
        nlink,
        node.uid,
        node.gid,
        rdev,
        node.mtime[0],
        node.mtime[1],
        payload,
        text,
        digest,
        node.xattrs,
    )


def entry_lines(entries: Iterable[tuple[Entry, Content]]) -> Iterator[bytes]:
    """Return a line for each entry of a layer, as it stands there: whiteouts too, and each with one link.

    Hard links are spelt, and attributes sorted, as composefs-rs does it.
    """
    for entry, content in entries:
        path = b"/" + entry.path
        if entry.kind == Kind.HARDLINK:
            yield b"%b 0 @120000 - - - - 0.0 %b - -\n" % (dump.escape(path), dump.optional(b"/" + entry.link))
            continue
        size = entry.size if entry.sparse is None else entry.sparse.size
        node = Node(
            entry.kind | entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime,
            dump.xattrs(sorted(entry.xattrs)),
            size,
            content,
            entry.link,
            entry.device,
        )
        yield _line(dump.escape(path), node, 1)
