"""The executable: ``cfsctl`` starts it and speaks the extension protocol over its standard input and output."""

from __future__ import annotations

import composefs_ext
from composefs_ext.commands import dispatch

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "pull": "composefs_ostree.commands:pull",
    "pull-local": "composefs_ostree.commands:pull_local",
    "list-refs": "composefs_ostree.remotes.commands:list_refs",
    "remote add": "composefs_ostree.remotes.commands:add",
    "remote list": "composefs_ostree.remotes.commands:list_all",
    "remote show": "composefs_ostree.remotes.commands:show",
    "remote delete": "composefs_ostree.remotes.commands:delete",
    "remote refs": "composefs_ostree.remotes.commands:refs",
    "commit": "composefs_ostree.making.commit:commit",
    "sign": "composefs_ostree.signatures.held:sign_held",
    "export": "composefs_ostree.making.export:export",
    "dump": "composefs_ostree.commands:dump",
    "compute-id": "composefs_ostree.commands:compute_id",
    "inspect": "composefs_ostree.commands:inspect",
    "images": "composefs_ostree.commands:images",
    "tag": "composefs_ostree.commands:tag",
    "untag": "composefs_ostree.commands:untag",
    "apply-delta": "composefs_ostree.deltas.offline:apply_delta",
    "fsck": "composefs_ostree.checking:fsck",
    "mount": "composefs_ostree.commands:mount",
}


def main() -> None:
    """Serve one run and exit."""
    composefs_ext.main(dispatch(COMMANDS))
