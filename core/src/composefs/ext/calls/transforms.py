"""``transforms`` of a dump: what the core does to its tree before an image is made of it (P-39).

They are the core's because a system's directory must get the same image as its container layers, whoever fetches those.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs.errors import MissingObjectError
from composefs.ext.context import Context
from composefs.paths import shown
from composefs.protocol.params import boolean, choice, mapping
from composefs.protocol.wire import Message
from composefs.transform import XATTR_MODES, filter_xattrs, propagate_usr_to_root
from composefs.tree import Node, Tree

__all__ = ["Transforms"]

KEEP_ALL = "keep-all"


class Transforms(NamedTuple):
    """What to do to a tree, in this order; without any, it is taken as it is."""

    usr_to_root: bool = False
    xattrs: str = KEEP_ALL
    bootable: bool = False

    @classmethod
    def of(cls, params: Message) -> Transforms:
        """Return those that a call asks for.  Raises UsageError."""
        if params.get("transforms") is None:
            return cls()
        asked = mapping(params, "transforms")
        xattrs = choice(asked, "xattrs", (KEEP_ALL, *XATTR_MODES), KEEP_ALL)
        return cls(boolean(asked, "usr_to_root"), xattrs, boolean(asked, "bootable"))

    def apply(self, context: Context, tree: Tree) -> None:
        """Transform a tree, in place.

        Objects that the tree does not refer to any longer need not be in the repository; those that hold boot entries
        or the SELinux policy must be.  Raises MissingObjectError; FormatError for a tree that cannot be transformed.
        """
        if self.usr_to_root:
            propagate_usr_to_root(tree)
        if self.xattrs != KEEP_ALL:
            filter_xattrs(tree, self.xattrs)
        if self.bootable:
            from composefs.boot import make_bootable  # loaded by the runs that need it: few make images to boot

            make_bootable(tree, lambda path, node: _read(context, path, node))


def _read(context: Context, path: bytes, node: Node) -> bytes:
    """Read the object of a file of the tree; its digest is checked by who asks."""
    assert node.digest is not None
    if context.repository is None:
        raise MissingObjectError(
            f"{shown(path)} must be read, and there is no repository",
            hint="the manifest must ask for a repository, at least to read",
        )
    with open(context.repository.objects.open(node.digest.hex()), "rb") as file:
        return file.read(node.size + 1)
