"""Hypothesis strategies: arbitrary trees."""

from __future__ import annotations

import stat

from hypothesis import strategies as st

from composefs.digest import Algorithm
from composefs.tree import Node, Tree, sort_children

names = st.binary(min_size=1, max_size=12).filter(lambda name: not {0, 47} & set(name) and name not in (b".", b".."))
u32 = st.integers(0, 2**32 - 1)
mtimes = st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 10**9 - 1))
xattrs = st.dictionaries(st.binary(min_size=1, max_size=20).filter(lambda name: 0 not in name), st.binary(max_size=40))
targets = st.binary(min_size=1, max_size=30).filter(lambda target: 0 not in target)


@st.composite
def leaves(draw: st.DrawFn, algorithm: Algorithm) -> Node:
    kind = draw(st.sampled_from([stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO]))
    node = Node(kind | draw(st.integers(0, 0o7777)), 1, draw(u32), draw(u32), 0, draw(mtimes), xattrs=draw(xattrs))
    if kind == stat.S_IFLNK:
        node.payload = draw(targets)
        node.size = len(node.payload)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        node.rdev = draw(u32)
    elif kind == stat.S_IFREG and draw(st.booleans()):
        node.content = draw(st.binary(min_size=1, max_size=100))
        node.size = len(node.content)
    elif kind == stat.S_IFREG and draw(st.booleans()):
        node.size = draw(st.integers(1, 2**53))
        node.digest = draw(st.binary(min_size=algorithm.size, max_size=algorithm.size))
    return node


@st.composite
def trees(draw: st.DrawFn, algorithm: Algorithm) -> Tree:
    """A tree of up to some twenty nodes, with hard links anywhere."""
    root = Node(0o40755, xattrs=draw(xattrs), children={})
    directories, placed = [root], []
    for _ in range(draw(st.integers(0, 20))):
        directory = draw(st.sampled_from(directories))
        name = draw(names)
        assert directory.children is not None
        if name in directory.children:
            continue
        choice = draw(st.integers(0, 9))
        if choice < 2:
            node = Node(0o40000 | draw(st.integers(0, 0o7777)), mtime=draw(mtimes), xattrs=draw(xattrs), children={})
            directories.append(node)
        elif choice < 4 and placed:
            node = draw(st.sampled_from(placed))
            if stat.S_ISCHR(node.mode) and not node.rdev:  # No image holds a whiteout with two names.
                continue
            node.home = node.home or next(
                (d, n) for d in directories for n, c in (d.children or {}).items() if c is node
            )
        else:
            node = draw(leaves(algorithm))
            placed.append(node)
        directory.children[name] = node
    for directory in directories:
        sort_children(directory, directory.children or {})
    return Tree(root, algorithm)
