"""Every recorded image, compressed in each way, and from each kind of source: 72 pulls in nine tests.

Each two of image, compression and kind of source meet, as in a Latin square, but not all three.  A test pulls a third
of the images, into one repository for each hash: no image finds layers of its own there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.commands import run
from support.oci_images import init, pack, pull
from support.oci_layers import run_generator
from support.oci_registry import Registry, push, registry
from support.peers import require
from support.vectors import DATA

PLAIN: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["oci"]
BOOT: list[dict[str, Any]] = json.loads((DATA / "boot.json").read_text())["oci"]
ROWS = [*PLAIN, *BOOT]
COMPRESSIONS = ("none", "gzip", "zstd")
SOURCES = ("layout", "archive", "registry")
IMAGES = 24


class Recorded(NamedTuple):
    """An image with one hash: the options of its pull, and the images that the config is to name."""

    row: dict[str, Any]
    algorithm: str
    options: tuple[str, ...]
    images: dict[str, str]


def recorded() -> Iterator[Recorded]:
    for row in PLAIN:
        images = {"composefs.image.v1": row["sha256-v1"], "composefs.image": row["sha256-v2"]}
        yield Recorded(row, "sha256", (), images)
        yield Recorded(row, "sha512", (), {"composefs.image.v1": row["sha512-v1"]})
    for row in BOOT:
        for algorithm in ("sha256", "sha512"):
            if f"{algorithm}-v1" in row:
                first, second = row[f"{algorithm}-v1"], row[f"{algorithm}-v2"]
                images = {
                    "composefs.image": second["plain"],
                    "composefs.image.v1": first["plain"],
                    "composefs.image.boot": second["bootable"],
                    "composefs.image.boot.v1": first["bootable"],
                }
                yield Recorded(row, algorithm, ("--bootable",), images)


def make(row: dict[str, Any], compression: str, directory: Path) -> Path:
    directory.mkdir()
    layout = directory / "layout"
    if row in PLAIN:
        options = f"--layers={row['layers']}", f"--compression={compression}"
        run_generator("make_oci_layout.py", row["seed"], layout, *options)
    elif compression == "zstd":
        # This generator does not know it.
        run_generator("make_boot_layout.py", row["seed"], directory / "plain", "--compression=none")
        how = ("--dest-compress-format=zstd", "--dest-oci-accept-uncompressed-layers=false")
        run(require("skopeo"), "copy", "--quiet", *how, f"oci:{directory / 'plain'}", f"oci:{layout}")
    else:
        run_generator("make_boot_layout.py", row["seed"], layout, f"--compression={compression}")
    assert media_types(layout) == {"application/vnd.oci.image.layer.v1.tar" + f"+{compression}".replace("+none", "")}
    return layout


def media_types(layout: Path) -> set[str]:
    """The types of the layers of a layout's only image."""
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads((layout / "blobs" / entry["digest"].replace(":", "/")).read_text())
    return {layer["mediaType"] for layer in manifest["layers"]}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


def test_the_number_of_images() -> None:
    assert len(list(recorded())) == IMAGES


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_image(served: Registry, tmp_path: Path, compression: str, source: str) -> None:
    places: dict[tuple[str, int], str] = {}
    repos: dict[Path, set[str]] = {}
    for each in recorded():
        if (ROWS.index(each.row) + COMPRESSIONS.index(compression)) % len(SOURCES) != SOURCES.index(source):
            continue
        kind = "plain" if each.row in PLAIN else "boot"
        key = (kind, each.row["seed"])
        if key not in places:
            layout = make(each.row, compression, tmp_path / f"{kind}{each.row['seed']}")
            places[key] = f"oci:{layout}"
            if source == "archive":
                places[key] = f"oci-archive:{pack(layout)}"
            elif source == "registry":
                places[key] = served.image(f"{kind}/{compression}:{each.row['seed']}")
                push(f"oci:{layout}", places[key], "--preserve-digests", "--dest-tls-verify=false")
        formats = (1, 2) if "composefs.image" in each.images else (1,)
        repo = tmp_path / f"{each.algorithm}-{len(formats)}"
        if repo not in repos:
            repos[init(repo, each.algorithm, *formats)] = set()
        tls = ("--tls-verify=false",) if source == "registry" else ()
        facts = pull(repo, places[key], f"{kind}:{each.row['seed']}", *each.options, *tls)
        told = (compression, source, each.algorithm, *key)
        assert facts["images"] == each.images, told
        repos[repo].update(each.images.values())
        assert facts["config"] == each.row["config"], told
        assert facts["objects"]["new"] + facts["objects"]["inlined"] > 0, told
        if kind == "boot":
            assert facts["boot_image"] == each.images["composefs.image.boot.v1"], told
            if compression == "none":
                assert facts["manifest"] == each.row["manifest"], told
    for repo, images in repos.items():
        assert {path.name for path in (repo / "images").iterdir()} == images
