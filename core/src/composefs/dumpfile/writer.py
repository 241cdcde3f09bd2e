"""Writing composefs-dump(5): from a tree to the text, depth first in name order.

Two programs' texts are known:

==============  ===============================================  =================================================
                composefs-rs 0.9.0 (``cfsctl`` commands)         libcomposefs 1.0.8 (``composefs-info dump``)
==============  ===============================================  =================================================
SIZE of a       0                                                the size of its entries in the image, where the
directory                                                        tree was read from one
NLINK           directories in a directory, names in the tree    as the tree's source says
PAYLOAD of a    made of the digest, where there is one           as the tree's source says
file
attributes      sorted by name                                   in the order of the source
hard link       ``0 @120000 - - - - 0.0 TARGET - -``             all of the target's fields, PAYLOAD names it
==============  ===============================================  =================================================

In both a hard link group is real at its first name.
"""

from __future__ import annotations

import stat
from binascii import hexlify
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from composefs.dumpfile.escape import escape, escape_attribute, is_plain
from composefs.tree import TYPE_MASK, Node, Tree, object_path

__all__ = ["write", "write_below"]

Style = Literal["rs", "c"]


Write = Callable[[bytes], object]
"""Takes the next piece of a text, all of it."""

_FLUSH_LINES = 4096
_LONG = 65536
"""A line or text of attributes of more bytes is not kept: attributes can have megabytes."""


def write(tree: Tree, out: Write, *, style: Style = "rs") -> None:
    """Pass the dump of a tree to ``out``, in pieces of some thousand lines."""
    links = _count_links(tree) if style == "rs" else None
    _write(b"/", b"/", tree.root, out, _Lines(style, links))


def write_below(path: bytes, node: Node, out: Write) -> None:
    """Pass the lines of a node, which has this path, and of all below it, with the links that its source says."""
    escaped = escape(path)
    _write(escaped, escaped if path == b"/" else escaped + b"/", node, out, _Lines("rs", None))


def _count_links(tree: Tree) -> dict[int, int]:
    """Count the names of each hard link group, by id of the node."""
    links: dict[int, int] = {}
    for node in tree.nodes():
        if node.home is not None:
            links[id(node)] = links.get(id(node), 0) + 1
    return links


def _write(path: bytes, prefix: bytes, node: Node, out: Write, form: _Lines) -> None:
    # Paths are put together of escaped names, and all names of a directory are searched at once for what to escape.
    # One prefix is kept, and of those above its length: in deep trees all together are long.
    lines = [form.of(path, node)]
    first_names: dict[int, bytes] = {}
    stack = [_names(prefix, node.children or {})]
    while stack:
        length, plain, names = stack[-1]
        prefix = prefix[:length]
        for name, node in names:
            path = prefix + (name if plain else escape(name))
            if node.home is None:
                line = form.of(path, node)
            else:
                first = first_names.setdefault(id(node), path)
                line = form.of(path, node) if first is path else form.of_link(path, node, first)
            lines.append(line)
            if len(lines) >= _FLUSH_LINES or len(line) > _LONG:
                out(b"".join(lines))
                lines.clear()
            if node.children is not None:
                prefix = path + b"/"
                stack.append(_names(prefix, node.children))
                break
        else:
            stack.pop()
    out(b"".join(lines))


def _names(prefix: bytes, children: dict[bytes, Node]) -> tuple[int, bool, Iterator[tuple[bytes, Node]]]:
    """Return the length of a directory's prefix, whether no name in it has anything to escape, and what is in it."""
    return len(prefix), is_plain(b"".join(children)), iter(children.items())


class _Lines:
    """Writes lines; what is the same in many of them is written once."""

    def __init__(self, style: Style, links: dict[int, int] | None) -> None:
        self._c = style == "c"
        self._links = links
        self._heads: dict[tuple[bytes, int, int, int, int, int], bytes] = {}
        self._times: dict[tuple[int, int], bytes] = {}
        self._xattrs: dict[int, bytes] = {}

    def of(self, path: bytes, node: Node) -> bytes:
        """Return the line of a node with this path, escaped."""
        if node.children is None:
            nlink = node.nlink if self._links is None else self._links.get(id(node), 1)
            return self._line(path, node, b"", nlink, *self._contents(node))
        if self._c:
            return self._line(path, node, b"", node.nlink, node.size, b"- - -")
        directories = sum([child.children is not None for child in node.children.values()])
        return self._line(path, node, b"", 2 + directories, 0, b"- - -")

    def of_link(self, path: bytes, node: Node, target: bytes) -> bytes:
        """Return the line of a further name of a node, whose first one is ``target``, escaped."""
        if not self._c:
            return b"%b 0 @120000 - - - - 0.0 %b - -\n" % (path, target)
        size, contents = self._contents(node)
        return self._line(path, node, b"@", node.nlink, size, target + contents[contents.index(b" ") :])

    def _line(self, path: bytes, node: Node, link: bytes, nlink: int, size: int, contents: bytes) -> bytes:
        key = link, node.mode, nlink, node.uid, node.gid, node.rdev
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = b"%b%o %d %d %d %d" % key
        mtime = node.mtime
        time = self._times.get(mtime)
        if time is None:
            time = self._times[mtime] = b"%d.%d" % mtime
        xattrs = self._xattrs.get(id(node.xattrs))
        if xattrs is None:
            xattrs = self._xattr_text(node.xattrs)
        return b"%b %d %b %b %b%b\n" % (path, size, head, time, contents, xattrs)

    def _contents(self, node: Node) -> tuple[int, bytes]:
        """Return SIZE, and the fields PAYLOAD, CONTENT and DIGEST, of what is no directory."""
        kind = node.mode & TYPE_MASK
        size = node.size
        if kind == stat.S_IFLNK:
            return size, _optional(node.payload) + b" - -"
        if kind != stat.S_IFREG:
            return 0, b"- - -"
        if node.content:
            return size, b"- %b -" % _optional(node.content)
        if not size:
            return size, b"- - -"
        digest = node.digest
        if digest is None:
            return size, _optional(node.payload) + b" - -"
        path = object_path(digest)
        if self._c and node.payload != path:
            path = _optional(node.payload)
        return size, b"%b - %b" % (path, hexlify(digest))

    def _xattr_text(self, xattrs: Mapping[bytes, bytes]) -> bytes:
        names = xattrs if self._c else sorted(xattrs)
        text = b"".join([b" %b=%b" % (escape_attribute(name), escape_attribute(xattrs[name])) for name in names])
        if len(text) <= _LONG:
            self._xattrs[id(xattrs)] = text
        return text


def _optional(raw: bytes | None) -> bytes:
    if raw is None:
        return b"-"
    return rb"\x2d" if raw == b"-" else escape(raw)
