"""What is done to the tree of a container image before it becomes an image to boot or run.

The rules are those of composefs-rs 0.9.0, so that a tree unpacked to a directory and the same tree pulled from a
registry have one id: the root takes its metadata from /usr, for layers rarely say what the root's is; what somebody
left in /run is dropped; and so are the attributes that depend on the host that unpacked.
"""

from __future__ import annotations

from collections.abc import Mapping

from composefs.errors import FormatError
from composefs.tree import NO_XATTRS, Node, Tree

__all__ = ["ALLOWLIST_ONLY", "XATTR_MODES", "filter_xattrs", "no_usr", "propagate_usr_to_root", "top_directory"]

ALLOWLIST_ONLY = "allowlist-only"
_KEEP_USER = "keep-user-xattrs"
XATTR_MODES = (ALLOWLIST_ONLY, _KEEP_USER)
"""Which extended attributes stay: ``security.capability`` alone, or ``user.*`` with it."""

ALLOWED_XATTRS = frozenset((b"security.capability",))


def propagate_usr_to_root(tree: Tree) -> None:
    """Give the root /usr's mode, owner, time and attributes, and empty /run, which gets /usr's time.

    Raises FormatError if /usr is missing, or /usr or /run are not directories.
    """
    root = tree.root
    usr = top_directory(tree, b"usr")
    if usr is None:
        raise no_usr()
    run = top_directory(tree, b"run")
    root.mode, root.uid, root.gid, root.mtime, root.xattrs = usr.mode, usr.uid, usr.gid, usr.mtime, usr.xattrs
    if run is not None:
        run.children = {}
        run.mtime = usr.mtime


def no_usr() -> FormatError:
    """Make the error for a tree without /usr."""
    return FormatError("there is no /usr, from which the root takes its metadata")


def filter_xattrs(tree: Tree, mode: str) -> None:
    """Keep what one of XATTR_MODES says of the attributes of every node."""
    if mode not in XATTR_MODES:
        raise ValueError(mode)
    keep_user = mode == _KEEP_USER
    filtered: dict[int, Mapping[bytes, bytes]] = {}
    seen: dict[int, Mapping[bytes, bytes]] = {}  # Keeps the mappings alive whose id() is a key.
    for node in tree.nodes():
        xattrs = node.xattrs
        if id(xattrs) not in filtered:
            seen[id(xattrs)] = xattrs
            kept = {
                name: value
                for name, value in xattrs.items()
                if name in ALLOWED_XATTRS or (keep_user and name.startswith(b"user."))
            }
            filtered[id(xattrs)] = kept or NO_XATTRS
        node.xattrs = filtered[id(xattrs)]


def top_directory(tree: Tree, name: bytes) -> Node | None:
    """Return a directory in the root, or None if there is none of that name; FormatError if it is something else."""
    node = (tree.root.children or {}).get(name)
    if node is not None and node.children is None:
        raise FormatError(f"/{name.decode()} is not a directory", hint="make it one in what the image is made of")
    return node
