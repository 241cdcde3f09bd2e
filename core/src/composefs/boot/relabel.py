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

_TYPES = {
    stat.S_IFDIR: ord("d"),
    stat.S_IFREG: ord("-"),
    stat.S_IFLNK: ord("l"),
    stat.S_IFBLK: ord("b"),
    stat.S_IFCHR: ord("c"),
    stat.S_IFIFO: ord("p"),
    stat.S_IFSOCK: ord("s"),
}


def relabel(tree: Tree, policy: Policy) -> None:
    """Set and remove the labels of all nodes, in place.  Raises what `Policy.label` does, and FormatError."""
    _Walk(tree, policy).run()


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


class _Walk:
    def __init__(self, tree: Tree, policy: Policy) -> None:
        self.root = tree.root
        self.policy = policy
        self.labeled = _Labeled()
        self.linked: dict[int, bytes | None] = {}  # id() of a node with several names -> the label it has got

    def run(self) -> None:
        """Walk depth first, in name order; the depth is not bounded, so this is no recursive function."""
        go, label_of = self.policy.go, self.policy.label
        state, path = go(self.policy.start, b"", b"/")
        self.root.xattrs = self.labeled.xattrs(self.root.xattrs, label_of(state, path, ord("d")))
        levels: list[tuple[Node, State, bytes, Iterator[bytes]]] = []
        node: Node | None = self.root
        while True:
            if node is not None:
                assert node.children is not None
                state, path = self.policy.below(state, path)
                levels.append((node, state, path, iter(list(node.children))))
            directory, above, prefix, names = levels[-1]
            assert directory.children is not None
            node = None
            for name in names:
                child = directory.children[name]
                state, path = go(above, prefix, name)
                type_ = _TYPES.get(child.mode & TYPE_MASK)
                if type_ is None:
                    raise FormatError(f"{shown(path)} has an unknown file type, mode {child.mode:o}")
                label = label_of(state, path, type_)
                if child.home is not None:
                    child = self.own_inode(directory, name, child, label)
                child.xattrs = self.labeled.xattrs(child.xattrs, label)
                if child.children is not None:
                    node = child
                    break
            else:
                levels.pop()
                if not levels:
                    return

    def own_inode(self, directory: Node, name: bytes, node: Node, label: bytes | None) -> Node:
        """Return the node for a name of an inode that may have others."""
        first = self.linked.setdefault(id(node), label)
        if first == label:
            return node
        node.nlink -= 1
        own = copy(node)
        own.nlink, own.home = 1, None
        assert directory.children is not None
        directory.children[name] = own  # The key is there, so the order stays.
        return own
