"""What differs between two trees."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from composefs.tree import TYPE_MASK, Node, Tree, walk

__all__ = ["Change", "compare", "objects_to_fetch"]


class Change(NamedTuple):
    """A path that differs.

    ``kind`` is "added", "removed" or "changed", ``fields`` what changed: type, mode, owner, device, mtime, links,
    target, content or xattrs.  A file with another type is changed, and what was or is below it removed or added.
    """

    path: bytes
    kind: str
    fields: tuple[str, ...] = ()


def compare(old: Tree, new: Tree) -> Iterator[Change]:
    """Yield what differs, depth first in name order; the root's path is ``/``."""
    yield from _changed(b"/", old.root, new.root)
    stack = [(b"/", old.root, new.root, _names(old.root, new.root))]
    while stack:
        prefix, old_directory, new_directory, names = stack[-1]
        for name in names:
            path = prefix + name
            before = (old_directory.children or {}).get(name)
            after = (new_directory.children or {}).get(name)
            if before is None or after is None:
                node = before or after
                assert node is not None
                kind = "removed" if after is None else "added"
                yield Change(path, kind)
                yield from _below(path, node, kind)
                continue
            yield from _changed(path, before, after)
            if before.children is not None and after.children is not None:
                stack.append((path + b"/", before, after, _names(before, after)))
                break
            yield from _below(path, before, "removed")
            yield from _below(path, after, "added")
        else:
            stack.pop()


def objects_to_fetch(old: Tree, new: Tree) -> dict[str, int]:
    """Return the objects that the new tree refers to and the old one does not: bytes by id."""
    known = old.objects()
    return {each: size for each, size in new.objects().items() if each not in known}


def _names(old: Node, new: Node) -> Iterator[bytes]:
    return iter(sorted({**(old.children or {}), **(new.children or {})}))


def _below(path: bytes, node: Node, kind: str) -> Iterator[Change]:
    for below, _, _, _ in walk(node):
        yield Change(path + below, kind)


def _changed(path: bytes, old: Node, new: Node) -> Iterator[Change]:
    if old.mode & TYPE_MASK != new.mode & TYPE_MASK:
        yield Change(path, "changed", ("type",))
        return
    fields = tuple([name for name, field in _FIELDS.items() if field(old) != field(new)])
    if fields:
        yield Change(path, "changed", fields)


_FIELDS: dict[str, Callable[[Node], object]] = {
    "mode": lambda node: node.mode,
    "owner": lambda node: (node.uid, node.gid),
    "device": lambda node: node.rdev,
    "mtime": lambda node: node.mtime,
    "links": lambda node: node.nlink if node.children is None else None,
    "target": lambda node: node.payload if stat.S_ISLNK(node.mode) else None,
    "content": lambda node: (node.size, node.content, node.digest) if stat.S_ISREG(node.mode) else None,
    "xattrs": lambda node: dict(node.xattrs),
}
