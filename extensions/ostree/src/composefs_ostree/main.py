"""The executable: ``cfsctl`` starts it and speaks the extension protocol over its standard input and output."""

from __future__ import annotations

import composefs_ext
from composefs_ext.commands import dispatch

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "pull": "composefs_ostree.commands.pull:pull",
    "pull-local": "composefs_ostree.commands.pull:pull_local",
    "list-refs": "composefs_ostree.commands.remotes:list_refs",
    "remote add": "composefs_ostree.commands.remotes:add",
    "remote list": "composefs_ostree.commands.remotes:list_all",
    "remote show": "composefs_ostree.commands.remotes:show",
    "remote gpg-import": "composefs_ostree.commands.remotes:gpg_import",
    "remote delete": "composefs_ostree.commands.remotes:delete",
    "remote refs": "composefs_ostree.commands.remotes:refs",
    "commit": "composefs_ostree.committing.commit:commit",
    "sign": "composefs_ostree.commands.sign:sign_held",
    "export": "composefs_ostree.exporting.export:export",
    "dump": "composefs_ostree.commands.trees:dump",
    "compute-id": "composefs_ostree.commands.trees:compute_id",
    "inspect": "composefs_ostree.commands.inspect:inspect",
    "log": "composefs_ostree.commands.log:log",
    "images": "composefs_ostree.commands.tags:images",
    "tag": "composefs_ostree.commands.tags:tag",
    "untag": "composefs_ostree.commands.tags:untag",
    "apply-delta": "composefs_ostree.commands.apply_delta:apply_delta",
    "fsck": "composefs_ostree.commands.fsck:fsck",
    "mount": "composefs_ostree.commands.trees:mount",
}


def main() -> None:
    """Serve one run and exit."""
    composefs_ext.main(dispatch(COMMANDS))
