"""How many names each file of a tree has, and whether the tree is larger than anybody can keep.

The tree is a graph: equal directories are one dirtree, so that a few objects can stand for more inodes than there are
atoms.  So both are counted on the graph, before anything is made of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from composefs_ext.errors import TooLargeError
from composefs_ostree.formats.objects import MAX_DEPTH, MAX_INODES, Dirtree
from composefs_ostree.held.tree import Tree

__all__ = ["count_links", "too_large"]


def too_large(limit: int) -> TooLargeError:
    """Return the error for a tree whose text has more than ``limit`` bytes."""
    return TooLargeError(
        f"the description of the commit's tree, a line for each file, is larger than {limit} bytes",
        hint="it has too many files, too long paths or too many attributes for one image",
    )


def count_links(tree: Tree, limit: int) -> dict[bytes, int]:
    """Count the names of every file in the whole tree, on the graph.

    Raise TooLargeError when the tree is too large, or the paths of its directories alone make more than ``limit`` bytes
    of text: the core would keep many of them before it is clear that there are too many.
    """
    names: dict[bytes, int] = dict.fromkeys(tree.trees, 0)
    depth: dict[bytes, int] = dict.fromkeys(tree.trees, 0)
    once: list[bytes] = []
    more: list[tuple[int, Dirtree]] = []
    names[tree.commit.root_tree] = 1
    lengths: dict[bytes, int] = dict.fromkeys(tree.trees, 0)  # of the paths by which a directory is reached, together
    lengths[tree.commit.root_tree] = 1
    inodes = 1
    size = 0
    for tree_id in _parents_first(tree):
        count = names[tree_id]
        below = depth[tree_id] + 1
        listing = tree.trees[tree_id]
        entries = len(listing.files) + len(listing.directories)
        inodes += count * entries
        if inodes > MAX_INODES or below > MAX_DEPTH:
            raise TooLargeError(
                f"the tree of the commit has more than {MAX_INODES} files or {MAX_DEPTH} nested directories",
                hint="this is how a small malicious commit describes an endless tree",
            )
        length = lengths[tree_id]
        size += length * entries
        if count == 1:
            once += [file_id for _, file_id in listing.files]
        else:
            more.append((count, listing))
        for name, subtree_id, _ in listing.directories:
            names[subtree_id] += count
            lengths[subtree_id] += length + count * (len(name) + 1)
            depth[subtree_id] = max(depth[subtree_id], below)
    if size > limit:
        raise too_large(limit)
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
