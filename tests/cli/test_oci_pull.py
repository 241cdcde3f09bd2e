"""``cfsctl oci pull`` from layouts and archives: every recorded id, whatever the compression."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.oci_images import init, pack, pull
from support.oci_layers import run_generator
from support.vectors import DATA

IMAGES: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["oci"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("row", IMAGES, ids=lambda row: str(row["seed"]))
def test_plain_images(tmp_path: Path, row: dict[str, Any], compression: str) -> None:
    layout = tmp_path / "layout"
    options = f"--layers={row['layers']}", f"--compression={compression}"
    run_generator("make_oci_layout.py", row["seed"], layout, *options)
    if compression == "none":
        facts = pull(init(tmp_path / "repo", "sha512"), f"oci:{layout}:v1")
        assert facts["images"] == {"composefs.image.v1": row["sha512-v1"]}
    else:
        source = f"oci:{layout}:v1" if compression == "gzip" else f"oci-archive:{pack(layout)}:v1"
        facts = pull(init(tmp_path / "repo", "sha256", 1, 2), source)
        assert facts["images"] == {"composefs.image": row["sha256-v2"], "composefs.image.v1": row["sha256-v1"]}
    assert facts["config"] == row["config"]
    assert {path.name for path in (tmp_path / "repo/images").iterdir()} == set(facts["images"].values())
