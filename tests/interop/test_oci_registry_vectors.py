"""Every recorded image from a registry: plain and bootable, compressed in each way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.oci_registry import Registry, push, registry
from support.vectors import DATA

IMAGES: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["oci"]
BOOT: list[dict[str, Any]] = json.loads((DATA / "boot.json").read_text())["oci"]
COMPRESSIONS = ("gzip", "zstd", "none")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("row", IMAGES, ids=lambda row: str(row["seed"]))
def test_plain_images(served: Registry, tmp_path: Path, row: dict[str, Any], compression: str) -> None:
    layout = tmp_path / "layout"
    run_generator(
        "make_oci_layout.py", row["seed"], layout, f"--layers={row['layers']}", f"--compression={compression}"
    )
    image = served.image(f"plain/{compression}:{row['seed']}")
    push(f"oci:{layout}:v1", image, "--preserve-digests", "--dest-tls-verify=false")
    if compression == "none":
        facts = pull(init(tmp_path / "repo", "sha512"), image, "--tls-verify=false")
        assert facts["images"] == {"composefs.image.v1": row["sha512-v1"]}
    else:
        facts = pull(init(tmp_path / "repo", "sha256", 1, 2), image, "--tls-verify=false")
        assert facts["images"] == {"composefs.image": row["sha256-v2"], "composefs.image.v1": row["sha256-v1"]}
    assert facts["config"] == row["config"]


@pytest.mark.parametrize("row", BOOT, ids=lambda row: str(row["seed"]))
def test_bootable_images(served: Registry, tmp_path: Path, row: dict[str, Any]) -> None:
    layout = tmp_path / "layout"
    compression = COMPRESSIONS[row["seed"] % 3]
    made = "gzip" if compression == "gzip" else "none"
    run_generator("make_boot_layout.py", row["seed"], layout, f"--compression={made}")
    image = served.image(f"boot/{compression}:{row['seed']}")
    how = ("--dest-compress-format=zstd",) if compression == "zstd" else ("--preserve-digests",)
    push(f"oci:{layout}", image, "--dest-tls-verify=false", *how)
    algorithm = "sha512" if "sha512-v1" in row and row["seed"] % 2 else "sha256"
    facts = pull(init(tmp_path / "repo", algorithm, 1, 2), image, "--bootable", "--tls-verify=false")
    first, second = row[f"{algorithm}-v1"], row[f"{algorithm}-v2"]
    assert facts["images"] == {
        "composefs.image": second["plain"],
        "composefs.image.v1": first["plain"],
        "composefs.image.boot": second["bootable"],
        "composefs.image.boot.v1": first["bootable"],
    }
    assert facts["boot_image"] == first["bootable"]
    assert facts["config"] == row["config"]
    if compression == "none":
        assert facts["manifest"] == row["manifest"]
