"""The installed cfsctl gives the ids that the reference programs gave, for seeded dumps and directory trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl
from support.dumps import generate_dump, image_of_its_dump, make_tree, recorded, row_name

IMAGES: list[dict[str, Any]] = recorded("images.json")
TREES: list[dict[str, Any]] = recorded("digests.json")["trees"]


def _algorithm(row: dict[str, Any]) -> str:
    return "sha512" if "--algorithm=sha512" in row["flags"] else "sha256"


def _format(key: str) -> tuple[str, ...]:
    """Options for the hash and format of a key, such as sha512-v2."""
    algorithm, version = key.split("-v")
    return ("--hash", algorithm, "--erofs-version", version)


# C's mkcomposefs made v0, vauto and v1 of the sha256 rows: the multicall tool's tests compare those.
RUST_ROWS = [row for row in IMAGES if "v2" in row]


@pytest.mark.parametrize("row", RUST_ROWS, ids=row_name)
def test_compute_id_of_a_dump(tmp_path: Path, row: dict[str, Any]) -> None:
    dump = tmp_path / "dump"
    dump.write_bytes(generate_dump(row))
    versions = [key for key in row if key in ("v0", "v1", "v2")]
    assert "v2" in versions
    for version in versions:
        done = cfsctl(
            "--no-repo", "--hash", _algorithm(row), "--erofs-version", version[1:], "compute-id", "--from-dump", dump
        )
        assert done.stdout == row[version]["fsverity"] + "\n", version


@pytest.mark.root
@pytest.mark.parametrize("row", TREES, ids=lambda row: f"{row['seed']}-{row['entries']}")
def test_ids_of_a_directory(tmp_path: Path, row: dict[str, Any]) -> None:
    tree = make_tree("make_tree.py", tmp_path / "tree", row["seed"], row["entries"])
    images = {key: value for key, value in row.items() if key.startswith("sha")}
    for key, image in images.items():
        options = ("--no-repo", *_format(key))
        done = cfsctl(*options, "compute-id", "--no-propagate-usr-to-root", tree)
        assert done.stdout == image + "\n", key
    # The rest in one format; tests/interop/test_scan_vectors.py has each.
    key = list(images)[row["seed"] % len(images)]
    image, options = images[key], ("--no-repo", *_format(key))
    # Through a dump, the objects' names stand in the text: the same tree, the same image.
    dump = tmp_path / "dump"
    dump.write_text(cfsctl(*options, "create-dumpfile", "--no-propagate-usr-to-root", tree).stdout)
    assert cfsctl(*options, "compute-id", "--from-dump", dump).stdout == image + "\n"
    # And stored, in a repository made for this hash and format.
    algorithm, version = key.split("-v")
    repository = tmp_path / key
    cfsctl("init", "--insecure", "--algorithm", f"fsverity-{algorithm}-12", "--erofs-version", version, repository)
    done = cfsctl("--repo", repository, "create-image", "--no-propagate-usr-to-root", tree, "tree")
    assert done.stdout == f"{algorithm}:{image}\n"
    assert (repository / "images" / "refs" / "tree").resolve().name == image[2:]
    assert image_of_its_dump(repository, image, dump) == image
