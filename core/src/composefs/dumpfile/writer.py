"""Writing composefs-dump(5): from a tree to the text.

The lines are those of composefs-rs 0.9.0 (``cfsctl create-dumpfile``, ``ostree dump``, ``oci dump``): depth first in
name order; a directory's SIZE is 0 and its NLINK counts its directories; other links are counted in the tree; a hard
link group is real at its first name; attributes are sorted by name.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import BinaryIO

from composefs.dumpfile.escape import escape, escape_attribute
from composefs.tree import TYPE_MASK, Node, Tree, walk

__all__ = ["write"]

_FLUSH_LINES = 4096


def write(tree: Tree, out: BinaryIO) -> None:
    """Write the dump of a tree.  Whole pieces of some thousand lines are written at once."""
    links: dict[int, int] = {}
    for _, _, _, node in walk(tree):
        if node.home is not None:
            links[id(node)] = links.get(id(node), 0) + 1

    first_names: dict[int, bytes] = {}
    xattr_texts: dict[int, bytes] = {}
    lines = [_line(b"/", tree.root, 1, xattr_texts)]
    for path, _, _, node in walk(tree):
        escaped = escape(path)
        if node.home is not None and id(node) in first_names:
            lines.append(b"%b 0 @120000 - - - - 0.0 %b - -\n" % (escaped, first_names[id(node)]))
        else:
            first_names[id(node)] = escaped
            lines.append(_line(escaped, node, links.get(id(node), 1), xattr_texts))
        if len(lines) >= _FLUSH_LINES:
            out.write(b"".join(lines))
            lines.clear()
    out.write(b"".join(lines))


def _line(path: bytes, node: Node, nlink: int, xattr_texts: dict[int, bytes]) -> bytes:
    kind = node.mode & TYPE_MASK
    size = node.size
    payload = content = digest = b"-"
    if kind == stat.S_IFDIR:
        size = 0
        nlink = 2 + sum([child.children is not None for child in (node.children or {}).values()])
    elif kind == stat.S_IFLNK:
        payload = _optional(node.payload)
    elif kind != stat.S_IFREG:
        size = 0
    elif node.content:
        content = _optional(node.content)
    elif size and node.digest is not None:
        digest = node.digest.hex().encode()
        payload = digest[:2] + b"/" + digest[2:]
    elif size:
        payload = _optional(node.payload)
    xattrs = xattr_texts.get(id(node.xattrs))
    if xattrs is None:
        xattrs = xattr_texts[id(node.xattrs)] = _xattr_text(node.xattrs)
    return b"%b %d %o %d %d %d %d %d.%d %b %b %b%b\n" % (
        path, size, node.mode, nlink, node.uid, node.gid, node.rdev, *node.mtime, payload, content, digest, xattrs,
    )  # fmt: skip


def _optional(raw: bytes | None) -> bytes:
    if raw is None:
        return b"-"
    return rb"\x2d" if raw == b"-" else escape(raw)


def _xattr_text(xattrs: Mapping[bytes, bytes]) -> bytes:
    return b"".join([b" %b=%b" % (escape_attribute(name), escape_attribute(xattrs[name])) for name in sorted(xattrs)])
