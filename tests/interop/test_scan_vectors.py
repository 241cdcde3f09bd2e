"""Ids of directories as composefs-rs 0.9.0 computed them: as they are, for containers, and to be booted."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from composefs import dumpfile, erofs
from composefs.cli.trees import Source, TreeOptions
from composefs.digest import ALGORITHMS, Algorithm
from composefs.observe import Observers
from composefs.scan import scan_directory
from support.dumps import image_hashes, make_tree, recorded

pytestmark = pytest.mark.root


def _keys(row: dict[str, Any]) -> list[tuple[str, Algorithm, int]]:
    keys = [key for key in row if key.startswith("sha")]
    return [(key, ALGORITHMS[key.split("-v")[0]], int(key.split("-v")[1])) for key in keys]


@pytest.mark.parametrize("row", recorded("digests.json")["trees"], ids=lambda row: str(row["seed"]))
def test_trees_as_they_are(row: dict[str, Any], tmp_path: Path) -> None:
    assert os.geteuid() == 0, "the recorded trees belong to root"
    source = make_tree("make_tree.py", tmp_path / "tree", row["seed"], row["entries"])
    for key, algorithm, version in _keys(row):
        tree = scan_directory(bytes(source), algorithm)
        pieces = [*erofs.write(tree, version=version)]
        assert image_hashes(pieces, algorithm)["fsverity"] == row[key], key
        # A dump of the tree is the tree.
        text = io.BytesIO()
        dumpfile.write(tree, text.write)
        assert [*erofs.write(dumpfile.parse(text.getvalue(), algorithm), version=version)] == pieces


@pytest.mark.parametrize("row", recorded("tree-options.json")["trees"], ids=lambda row: str(row["seed"]))
def test_trees_with_every_option_of_the_commands(row: dict[str, Any], tmp_path: Path) -> None:
    assert os.geteuid() == 0, "the trees have device nodes and owners"
    directory = make_tree("make_boot_layout.py", tmp_path / "tree", row["seed"], "--tree")
    rows = 0
    for command in row["sha256-v1"]:
        name, *words = command.split()
        if name == "compute-id":
            mode = words[-1] if "--xattrs" in words else None
            options = TreeOptions("--no-propagate-usr-to-root" in words, mode, "--bootable" in words)
            for key, algorithm, version in _keys(row):
                image = Source(directory=str(directory), options=options).image_id(algorithm, version, Observers())
                assert image == row[key][command], (key, command)
                rows += 1
    assert rows == 7 * len(_keys(row))
