"""The executable: ``cfsctl`` starts it and speaks the extension protocol over its standard input and output."""

from __future__ import annotations

import composefs_ext
from composefs_ext.commands import dispatch

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "pull": "composefs_oci.commands.pull:pull",
    "images": "composefs_oci.commands.listing:images",
    "inspect": "composefs_oci.commands.listing:inspect",
    "referrers": "composefs_oci.commands.listing:referrers",
    "list-referrers": "composefs_oci.commands.listing:list_referrers",
    "tag": "composefs_oci.commands.tags:tag",
    "untag": "composefs_oci.commands.tags:untag",
    "list-tags": "composefs_oci.commands.tags:list_tags",
    "layer": "composefs_oci.commands.layers:layer",
    "import-layer": "composefs_oci.commands.importing:import_layer",
    "dump": "composefs_oci.commands.trees:dump",
    "compute-id": "composefs_oci.commands.trees:compute_id",
    "mount": "composefs_oci.commands.trees:mount",
    "prepare-boot": "composefs_oci.commands.boot:prepare_boot",
    "copy": "composefs_oci.commands.copy:copy",
    "fsck": "composefs_oci.commands.fsck:fsck",
}


def main() -> None:
    """Serve one run and exit."""
    composefs_ext.main(dispatch(COMMANDS))
