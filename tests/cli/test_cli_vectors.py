"""The installed cfsctl gives the ids that the reference programs gave, for seeded dumps and directory trees."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl
from support.dumps import image_of_its_dump

VECTORS = Path(__file__).parent.parent / "vectors"
IMAGES: list[dict[str, Any]] = json.loads((VECTORS / "images.json").read_text())
TREES: list[dict[str, Any]] = json.loads((VECTORS / "digests.json").read_text())["trees"]


def _algorithm(row: dict[str, Any]) -> str:
    return "sha512" if "--algorithm=sha512" in row["flags"] else "sha256"


def _name(row: dict[str, Any]) -> str:
    return "-".join([str(row["seed"]), str(row["entries"]), *(flag.strip("-") for flag in row["flags"])])


def _format(key: str) -> tuple[str, ...]:
    """Options for the hash and format of a key, such as sha512-v2."""
    algorithm, version = key.split("-v")
    return ("--hash", algorithm, "--erofs-version", version)


# C's mkcomposefs made v0, vauto and v1 of the sha256 rows: the multicall tool's tests compare those.
RUST_ROWS = [row for row in IMAGES if "v2" in row]


@pytest.mark.parametrize("row", RUST_ROWS, ids=_name)
def test_compute_id_of_a_dump(tmp_path: Path, row: dict[str, Any]) -> None:
    dump = tmp_path / "dump"
    with dump.open("wb") as out:
        generator = [sys.executable, VECTORS / "gen_dump.py", str(row["seed"]), str(row["entries"]), *row["flags"]]
        subprocess.run(generator, stdout=out, check=True)
    assert hashlib.sha256(dump.read_bytes()).hexdigest() == row["dump_sha256"]
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
    tree = tmp_path / "tree"
    subprocess.run([sys.executable, VECTORS / "make_tree.py", str(row["seed"]), tree, str(row["entries"])], check=True)
    recorded = {key: value for key, value in row.items() if key.startswith("sha")}
    for key, image in recorded.items():
        options = ("--no-repo", *_format(key))
        done = cfsctl(*options, "compute-id", "--no-propagate-usr-to-root", tree)
        assert done.stdout == image + "\n", key
    # The rest in one format; tests/interop/test_scan_vectors.py has each.
    key = list(recorded)[row["seed"] % len(recorded)]
    image, options = recorded[key], ("--no-repo", *_format(key))
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
