"""Images of layers: the ids that composefs-rs 0.9.0 gave, and what it said of the odd ones beside what we say.

The table in docs/formats/oci.md gives the reasons where the two differ; a test compares it with this one.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from composefs import dumpfile
from composefs.digest import ALGORITHMS
from composefs.errors import ComposefsError
from composefs_ext.errors import ExtError
from support.oci_layers import Layers, archives, run_generator
from support.vectors import DATA

IMAGES: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["oci"]
BOOT: dict[str, Any] = json.loads((DATA / "boot.json").read_text())
ODD: dict[str, dict[str, Any]] = {row["case"]: row for kind in ("errors", "quirks") for row in BOOT[kind]}

MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain keep-user-xattrs": {"xattrs": "keep-user-xattrs"},
    "bootable": {"bootable": True},
    "bootable keep-user-xattrs": {"bootable": True, "xattrs": "keep-user-xattrs"},
}


def variants(row: dict[str, Any]) -> list[tuple[str, int, Any]]:
    """(hash, format, what was recorded) of a row's keys like sha256-v1."""
    keys = [key for key in row if key.startswith("sha") and "extra" not in key]
    return [(key.split("-v")[0], int(key.split("-v")[1]), row[key]) for key in keys]


@pytest.mark.parametrize("row", IMAGES, ids=lambda row: str(row["seed"]))
def test_plain_images(tmp_path: Path, row: dict[str, Any]) -> None:
    run_generator("make_oci_layout.py", row["seed"], tmp_path / "layout", f"--layers={row['layers']}")
    data = archives(tmp_path / "layout")
    assert len(data) == row["layers"]
    seen = 0
    for algorithm, version, expected in variants(row):
        layers = Layers(tmp_path, ALGORITHMS[algorithm])
        for archive in data:
            layers.add(archive)
            assert layers.archive() == archive
        assert layers.image(version) == expected, (algorithm, version)
        seen += 1
    assert seen >= 3


@pytest.mark.parametrize("row", BOOT["oci"], ids=lambda row: str(row["seed"]))
def test_bootable_images_in_every_mode(tmp_path: Path, row: dict[str, Any]) -> None:
    run_generator("make_boot_layout.py", row["seed"], tmp_path / "layout")
    data = archives(tmp_path / "layout")
    seen = 0
    for algorithm, version, expected in variants(row):
        layers = Layers(tmp_path, ALGORITHMS[algorithm])
        for archive in data:
            layers.add(archive)
            assert layers.archive() == archive
        for mode, options in MODES.items():
            if mode in expected:
                assert layers.image(version, **options) == expected[mode], (algorithm, version, mode)
                assert layers.image(version, **options, upstream=True) == expected[mode], "both readings agree"
                seen += 1
            if mode in expected.get("dump sha256", ()):
                out = io.BytesIO()
                dumpfile.write(layers.tree(**options), out)
                assert hashlib.sha256(out.getvalue()).hexdigest() == expected["dump sha256"][mode]
    assert seen >= 8


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


def layers_of(directory: Path, case: str) -> Layers:
    run_generator("make_boot_layout.py", 0, directory / "layout", f"--case={case}")
    layers = Layers(directory)
    for archive in archives(directory / "layout"):
        layers.add(archive)
        assert layers.archive() == archive
    return layers


def test_every_odd_case_has_an_answer() -> None:
    accepted_by_both = {case for case, row in ODD.items() if row["rs"] == "accepted"} - {"dotdot-last"}
    assert {*ACCEPTED, *REFUSED, *BOOTABLE_ONLY, *accepted_by_both} == set(ODD)
    assert accepted_by_both >= READ_OTHERWISE | OF_THE_PULL


def test_the_page_lists_what_differs() -> None:
    """Every case that composefs-rs answers otherwise is a row of the table in docs/formats/oci.md."""
    page = (DATA.parents[1] / "docs" / "formats" / "oci.md").read_text()
    table = page.split("## Where composefs-rs 0.9.0 differs")[1].split("\n## ")[0]
    rows = {line.split("|")[1].strip(" `") for line in table.splitlines() if line.startswith("| `")}
    assert rows >= {*ACCEPTED, *READ_OTHERWISE, *OF_THE_PULL, "dotdot-last"}
    assert rows <= set(ODD)


@pytest.mark.parametrize("case", ACCEPTED)
def test_refused_there_accepted_here(tmp_path: Path, case: str) -> None:
    layers = layers_of(tmp_path, case)
    expected = ACCEPTED[case]
    if isinstance(expected, str):
        assert layers.image(1) == expected
        assert layers.image(1, bootable=True) == expected
        return
    lines = layers.dump().decode().splitlines()
    for line in expected:
        if "OBJECT" in line:
            line = next(found for found in lines if found.startswith(line.split(" OBJECT")[0]))
            assert len(layers.objects[line.split(" ")[10]]) == 4096
        assert line in lines
    if case == "no-usr":
        layers.image(1, has_usr=False)
        with pytest.raises(ComposefsError, match="there is no /usr, which a bootable image needs"):
            layers.image(1, has_usr=False, bootable=True)
    else:
        layers.image(1)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_there_and_here(tmp_path: Path, case: str) -> None:
    stage, words = REFUSED[case]
    if stage == "layer":
        with pytest.raises(ExtError) as refusal:
            layers_of(tmp_path, case)
    else:
        layers = layers_of(tmp_path, case)
        error = ExtError if stage == "tree" else ComposefsError
        with pytest.raises(error) as refusal:
            layers.image(1)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("case", sorted(BOOTABLE_ONLY))
def test_refused_when_made_bootable(tmp_path: Path, case: str) -> None:
    layers = layers_of(tmp_path, case)
    for _, version, expected in variants(ODD[case]):
        assert layers.image(version) == expected["pull"]
    with pytest.raises(ComposefsError):
        layers.image(1, bootable=True)


@pytest.mark.parametrize(
    "case", [case for case, row in ODD.items() if row["rs"] == "accepted" and case != "dotdot-last"]
)
def test_accepted_there_and_here(tmp_path: Path, case: str) -> None:
    layers = layers_of(tmp_path, case)
    for _, version, expected in variants(ODD[case]):
        for key, options in (("pull", MODES["plain"]), ("pull --bootable", MODES["bootable"])):
            assert layers.image(version, **options, upstream=True) == expected[key]
            ours = layers.image(version, **options)
            if case not in READ_OTHERWISE:
                assert ours == expected[key]
            else:
                assert (ours == expected[key]) == (case == "two-mtimes" and version == 2), "format 2 keeps no fractions"
                assert ours == expected.get(key.replace("pull", "tree"), ours)
    if case == "two-mtimes":
        assert b"/etc/x 0 100644 1 0 0 0 2.500000000 - - -" in layers.dump().splitlines()
        assert b"/etc/x 0 100644 1 0 0 0 2.250000000 - - -" in layers.dump(upstream=True).splitlines()
