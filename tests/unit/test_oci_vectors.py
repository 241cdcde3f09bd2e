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
from support.oci_odd import ACCEPTED, BOOT, BOOTABLE_ONLY, ODD, OF_THE_PULL, READ_OTHERWISE, REFUSED
from support.vectors import DATA

IMAGES: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["oci"]

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
                dumpfile.write(layers.tree(**options), out.write)
                assert hashlib.sha256(out.getvalue()).hexdigest() == expected["dump sha256"][mode]
    assert seen >= 8


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
