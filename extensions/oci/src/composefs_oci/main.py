"""The executable: ``cfsctl`` starts it and speaks the extension protocol over its standard input and output."""

from __future__ import annotations

import composefs_ext
from composefs_ext.commands import dispatch

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "pull": "composefs_oci.pull:pull",
    "images": "composefs_oci.listing:images",
    "inspect": "composefs_oci.listing:inspect",
    "referrers": "composefs_oci.listing:referrers",
    "list-referrers": "composefs_oci.listing:list_referrers",
    "tag": "composefs_oci.tags:tag",
    "untag": "composefs_oci.tags:untag",
    "list-tags": "composefs_oci.tags:list_tags",
    "layer": "composefs_oci.layers:layer",
    "import-layer": "composefs_oci.layers:import_layer",
    "dump": "composefs_oci.trees:dump",
    "compute-id": "composefs_oci.trees:compute_id",
    "mount": "composefs_oci.trees:mount",
    "prepare-boot": "composefs_oci.boot:prepare_boot",
    "copy": "composefs_oci.copying:copy",
    "fsck": "composefs_oci.checking:fsck",
}


def main() -> None:
    """Serve one run and exit."""
    composefs_ext.main(dispatch(COMMANDS))
