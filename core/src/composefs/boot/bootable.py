"""The tree of a system, made ready to be booted from its image.

What is in /boot goes to the boot partition, and /sysroot is where the image's own disk is mounted: both must be there
and are emptied, for the kernel image in /boot may name the id of this very image on its command line.  Then every file
gets its SELinux label: a container's layers have none that hold on the system to be booted.
"""

from __future__ import annotations

from composefs.boot.entries import check_entries
from composefs.boot.lookup import Contents, Files
from composefs.boot.policy import load
from composefs.boot.relabel import relabel, remove_labels
from composefs.errors import FormatError
from composefs.transform import top_directory
from composefs.tree import Node, Tree, collection_paused

__all__ = ["make_bootable"]

EMPTIED = (b"boot", b"sysroot")


def make_bootable(tree: Tree, contents: Contents, *, stored: bool = True) -> None:
    """Do all of it, in place.

    ``stored``: the image shall be stored, so its boot entries are checked, and the policy is not sought through
    symlinks.  Without it, an id is computed as composefs-rs 0.9.0 computes that of a directory: entries are not looked
    at, and symlinks to the policy are followed (within the tree).

    Raises FormatError without /usr, /boot or /sysroot, for a malformed policy or boot entry; NotFoundError for the
    missing file of a boot entry; TooLargeError; and what ``contents`` raises.
    """
    root = Files(tree, contents)
    usr = _directory(tree, b"usr")
    emptied = [_directory(tree, name) for name in EMPTIED]
    if stored:
        check_entries(root)
    with collection_paused():
        policy = load(root if stored else Files(tree, contents, follow=True))
        for directory in emptied:
            directory.children = {}
            directory.mtime = usr.mtime[0], directory.mtime[1]  # The nanoseconds stay, as composefs-rs leaves them.
        if policy is None:
            remove_labels(tree)
        else:
            relabel(tree, policy)


def _directory(tree: Tree, name: bytes) -> Node:
    node = top_directory(tree, name)
    if node is None:
        raise FormatError(
            f"there is no /{name.decode()}, which a bootable image needs", hint=f"make it: mkdir {name.decode()}"
        )
    return node
