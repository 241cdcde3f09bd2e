"""Give every file of a tree the SELinux label that the tree's own policy has for it.

A label belongs to an inode, but the policy gives it to a path.  The first of an inode's names, in the order of the
walk, decides; each other name with another label than that becomes an inode of its own, even where two of them agree,
as composefs-rs 0.9.0 makes them.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from copy import copy

from composefs.boot.automaton import State
from composefs.boot.policy import Policy
from composefs.errors import FormatError
from composefs.paths import shown
from composefs.tree import NO_XATTRS, TYPE_MASK, Node, Tree

__all__ = ["SELINUX_XATTR", "relabel", "remove_labels"]

SELINUX_XATTR = b"security.selinux"

_KINDS = (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK)
_TYPES = dict(zip(_KINDS, b"d-lbcps", strict=True))
"""The letters that policies have for types of files, as ls -l."""


def relabel(tree: Tree, policy: Policy) -> None:
    """Set and remove the labels of all nodes, in place.  Raises what `Policy.label` does, and FormatError."""
    labeled = _Labeled()
    linked: dict[int, bytes | None] = {}  # id() of a node with several names -> the label it has got
    go, label_of = policy.go, policy.label
    state, path = go(policy.start, b"", b"/")
    tree.root.xattrs = labeled.xattrs(tree.root.xattrs, label_of(state, path, ord("d")))
    # Depth first, in name order; the depth is not bounded, so this is no recursive function.
    levels = [_entered(tree.root, policy.below(state, path))]
    while levels:
        children, above, prefix, names = levels[-1]
        for name in names:
            node = children[name]
            state, path = go(above, prefix, name)
            type_ = _TYPES.get(node.mode & TYPE_MASK)
            if type_ is None:
                raise FormatError(f"{shown(path)} has an unknown file type, mode {node.mode:o}")
            label = label_of(state, path, type_)
            if node.home is not None and linked.setdefault(id(node), label) != label:
                node = children[name] = _own_inode(node)  # the key is there, so the order stays
            node.xattrs = labeled.xattrs(node.xattrs, label)
            if node.children is not None:
                levels.append(_entered(node, policy.below(state, path)))
                break
        else:
            levels.pop()


def _entered(directory: Node, place: tuple[State, bytes]) -> tuple[dict[bytes, Node], State, bytes, Iterator[bytes]]:
    """Return what is in a directory, the state and path with which its names go on, and the names to come."""
    assert directory.children is not None
    return directory.children, *place, iter(list(directory.children))


def _own_inode(node: Node) -> Node:
    """Return another inode for a name of one that has others."""
    node.nlink -= 1
    own = copy(node)
    own.nlink, own.home = 1, None
    return own


def remove_labels(tree: Tree) -> None:
    """Remove the labels of all nodes, in place."""
    labeled = _Labeled()
    for node in tree.nodes():
        node.xattrs = labeled.xattrs(node.xattrs, None)


class _Labeled:
    """Attributes with another label: equal ones stay one mapping, for their writer works once for each."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, bytes | None], Mapping[bytes, bytes]] = {}
        self._sources: dict[int, Mapping[bytes, bytes]] = {}  # Keeps the mappings alive whose id() is in a key.

    def xattrs(self, xattrs: Mapping[bytes, bytes], label: bytes | None) -> Mapping[bytes, bytes]:
        """Return ``xattrs`` with a label, or without any."""
        if xattrs.get(SELINUX_XATTR) == label:
            return xattrs
        key = id(xattrs), label
        made = self._made.get(key)
        if made is None:
            self._sources[id(xattrs)] = xattrs
            fresh = {name: value for name, value in xattrs.items() if name != SELINUX_XATTR}
            if label is not None:
                fresh[SELINUX_XATTR] = label
            made = self._made[key] = fresh or NO_XATTRS
        return made
