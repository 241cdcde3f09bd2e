"""Ids of directories as composefs-rs 0.9.0 computed them: as they are, and after the container transform."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from composefs import dumpfile, erofs, transform
from composefs.digest import ALGORITHMS, Algorithm
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
        tree = scan_directory(str(source), algorithm)
        pieces = erofs.write(tree, version=version)
        assert image_hashes(pieces, algorithm)["fsverity"] == row[key], key
        # A dump of the tree is the tree.
        text = io.BytesIO()
        dumpfile.write(tree, text)
        assert erofs.write(dumpfile.parse(text.getvalue(), algorithm), version=version) == pieces


@pytest.mark.parametrize("row", recorded("tree-options.json")["trees"], ids=lambda row: str(row["seed"]))
def test_trees_after_the_container_transform(row: dict[str, Any], tmp_path: Path) -> None:
    assert os.geteuid() == 0, "the trees have device nodes and owners"
    source = make_tree("make_boot_layout.py", tmp_path / "tree", row["seed"], "--tree")
    for key, algorithm, version in _keys(row):
        for command, expected in row[key].items():
            words = command.split()
            if words[0] != "compute-id" or "--bootable" in words:
                continue
            tree = scan_directory(bytes(source), algorithm)
            if "--no-propagate-usr-to-root" not in words:
                transform.container(tree, words[-1] if "--xattrs" in words else "allowlist-only")
            pieces = erofs.write(tree, version=version)
            assert image_hashes(pieces, algorithm)["fsverity"] == expected, (key, command)
