"""Odd images of the test vectors: what composefs-rs 0.9.0 says of each, and what we say.

The table in docs/formats/oci.md gives the reasons where the two differ.
"""

from __future__ import annotations

import json
from typing import Any

from support.vectors import DATA

BOOT: dict[str, Any] = json.loads((DATA / "boot.json").read_text())
ODD: dict[str, dict[str, Any]] = {row["case"]: row for kind in ("errors", "quirks") for row in BOOT[kind]}

# Where composefs-rs refuses and we do not: what the tree is then.  "base" is the image that all cases start from.
BASE = ODD["same-layer-twice"]["sha256-v1"]["pull"]
ACCEPTED = {
    "no-usr": ["/ 0 40755 6 0 0 0 0.0 - - -"],
    "missing-parent": ["/etc/no 0 40755 2 0 0 0 0.0 - - -", "/etc/no/file 0 100644 1 0 0 0 1700000000.0 - - -"],
    "symlinked-parent": [
        "/etc/d/file 0 100644 1 0 0 0 1700000000.0 - - -",
        "/etc/link 1 120777 1 0 0 0 1700000000.0 d - -",
    ],
    "hardlink-through-symlink": [
        "/etc/d/f 0 100644 2 0 0 0 1700000000.0 - - -",
        "/etc/h 0 @100644 1 0 0 0 0.0 /etc/d/f - -",
    ],
    "sparse-gnu": ["/etc/s 0 100644 1 0 0 0 1700000000.0 - - -"],
    "sparse-pax": [f"/etc/s 4096 100644 1 0 0 0 1700000000.0 {'OBJECT OF 4096 BYTES'} -"],
    "negative-mtime-pax": ["/etc/x 0 100644 1 0 0 0 -2.500000000 - - -"],
    "negative-mtime-header": ["/etc/x 0 100644 1 0 0 0 -2.0 - - -"],
    "pax-key-not-utf8": ["/etc/x 0 100644 1 0 0 0 1700000000.0 - - -"],
    "no-zero-blocks": BASE,
    "whiteout-plnk": BASE,
    "whiteout-missing-parent": BASE,
    "opaque-missing-directory": BASE,
    "gzip-members": BASE,
}
# Refused here too: by which call, and the words that name what is wrong.
REFUSED = {
    "usr-symlink": ("image", "/usr is not a directory"),
    "run-file": ("image", "/run is not a directory"),
    "file-parent": ("tree", "etc/file/x: file is on its way, but is not a directory"),
    "hardlink-missing": ("tree", "etc/h: the target of the hard link, etc/none, does not exist"),
    "hardlink-directory": ("tree", "etc/h: the target of the hard link, etc/d, is a directory"),
    "hardlink-dotdot": ("layer", "the hard link usr/../etc/file has .. in its path"),
    "hardlink-to-device-0-0": ("image", "has 2 names; a whiteout has one"),
    "dotdot": ("layer", "usr/../etc/x has .. in its path"),
    "dotdot-last": ("layer", "etc/../ has .. in its path"),
    "empty-path": ("layer", "an entry has an empty path"),
    "root-file": ("layer", "the root of the archive must be a directory"),
    "unknown-type": ("layer", "etc/x: entries of type Z are not known"),
    "directory-with-size": ("layer", "etc/x: it has a size of 1"),
    "two-pax-headers": ("layer", "a pax header stands where its entry should be"),
    "pax-too-long": ("layer", "1100017 bytes, more than 1048576"),
    "bad-checksum": ("layer", "wrong checksum (etc/y)"),
    "truncated": ("layer", "the archive ends within an entry"),
    "lone-zero-block": ("layer", "a single zero block"),
}
# Accepted by both, with another tree than composefs-rs's; its own reading gives its id.
READ_OTHERWISE = {"opaque-order", "whiteout-order", "two-mtimes"}
# What is compared before a layer is taken apart, or says nothing about a tree: tests of the pull.
OF_THE_PULL = {"wrong-diff-id", "wrong-blob"}
BOOTABLE_ONLY = {case for case, row in ODD.items() if row["rs"].startswith("refused: bootable")}
