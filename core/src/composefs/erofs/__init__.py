"""EROFS images of trees, byte for byte as libcomposefs (formats 0 and 1) and composefs-rs (0, 1 and 2) write them.

An image holds names, metadata and small files; of a larger file it has the fs-verity digest.  It is a pure function of
the tree and the format.  The work goes through one module a step: `overlay` makes inodes of the tree, `xattrs` decides
what is shared, `placement` finds everyone's place, `emit` writes.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from composefs.erofs.layout import MAX_ENTRIES, MAX_IMAGE, MAX_VERSION
from composefs.errors import TooLargeError, UsageError
from composefs.tree import TYPE_MASK, Node, Tree, collection_paused

if TYPE_CHECKING:
    from composefs.erofs.overlay import Inode
    from composefs.erofs.xattrs import AttributeSets

__all__ = ["write"]

C_MAX_VERSION = 1
_DIVIDE = "divide the tree, and make an image of each part"


def write(
    tree: Tree, *, version: int, max_version: int | None = None, compat: Literal["rs", "c"] = "rs"
) -> Iterator[bytes]:
    """Return the image of a tree, in pieces of some MiB, each of which is made when it is asked for.

    ``compat`` says whose bytes; "c" has formats 0 and 1, and with a ``max_version`` of 1 it writes format 1
    instead of 0 if there is a whiteout in the tree.  Raises UsageError for an unknown format, TooLargeError and
    FormatError for a tree that does not fit into an image; composefs-rs' images go into repositories, and have no more
    than their reader takes.
    """
    limit = C_MAX_VERSION if compat == "c" else MAX_VERSION
    if not 0 <= version <= limit or (max_version or 0) > limit:
        raise UsageError(f"EROFS format {max(version, max_version or 0)} does not exist (known: 0 to {limit})")
    # Not at the top: this package is imported for its constants too, and the steps take 10 ms to load.
    from composefs.erofs.emit import emit
    from composefs.erofs.overlay import WriteRules, rewrite
    from composefs.erofs.placement import place
    from composefs.erofs.unfit import Unfit

    with collection_paused():
        if compat == "c" and version == 0 and max_version == 1 and any(map(_is_whiteout, tree.nodes())):
            version = 1
        rules = WriteRules(version, c=compat == "c")
        try:
            inodes, xattrs = rewrite(tree, rules)
            if not rules.c:
                _check_entries(inodes, xattrs)
            placement = place(inodes, xattrs, rules)
        except Unfit as unfit:
            raise unfit.named(tree) from unfit
    if not rules.c and placement.size > MAX_IMAGE:
        raise TooLargeError(f"the image of the tree has more than {MAX_IMAGE} bytes", hint=_DIVIDE)
    return emit(inodes, xattrs, placement, rules)


def _check_entries(inodes: list[Inode], xattrs: AttributeSets) -> None:
    names = sum(len(inode.names) - 2 for inode in inodes if inode.names is not None)
    if max(names, xattrs.count) > MAX_ENTRIES:
        raise TooLargeError(
            f"the tree has more than {MAX_ENTRIES} names or different extended attributes", hint=_DIVIDE
        )


def _is_whiteout(node: Node) -> bool:
    return node.mode & TYPE_MASK == stat.S_IFCHR and not node.rdev & 0xFFFFFFFF
