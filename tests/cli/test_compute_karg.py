"""``cfsctl compute-karg``: its two spellings, the question mark, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import cfsctl


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("usr/lib", "boot", "sysroot"):
        (tmp_path / "tree" / name).mkdir(parents=True)
    (tmp_path / "tree/boot/vmlinuz").write_bytes(b"k" * 100)
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ((), "composefs.digest=v1-sha512-12:"),
        (("--erofs-version", "0"), "composefs.digest=v1-sha512-12:"),
        (("--hash", "sha256"), "composefs.digest=v1-sha256-12:"),
        (("--hash", "sha256", "--insecure"), "composefs.digest=?v1-sha256-12:"),
        (("--erofs-version", "2"), "composefs="),
        (("--erofs-version", "2", "--insecure"), "composefs=?"),
    ],
)
def test_the_argument_holds_the_id_of_the_bootable_image(tree: Path, options: tuple[str, ...], start: str) -> None:
    image = cfsctl("--no-repo", *options, "compute-id", "--bootable", tree).stdout
    assert cfsctl("--no-repo", *options, "compute-karg", tree).stdout == start + image
    assert image != cfsctl("--no-repo", *options, "compute-id", tree).stdout


def test_an_insecure_repository_gives_a_question_mark_and_nothing_is_stored(tree: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    cfsctl("init", "--insecure", "--erofs-version", "2", repository)
    before = sorted(repository.rglob("*"))
    assert cfsctl("--repo", repository, "compute-karg", tree).stdout.startswith("composefs=?")
    assert sorted(repository.rglob("*")) == before


def test_json(tree: Path) -> None:
    found = json.loads(cfsctl("--no-repo", "compute-karg", "--json", tree).stdout)
    assert found == {
        "argument": f"composefs.digest=v1-sha512-12:{found['id']}",
        "id": cfsctl("--no-repo", "compute-id", "--bootable", tree).stdout.strip(),
        "algorithm": "fsverity-sha512-12",
        "erofs_version": 1,
    }


def test_what_cannot_be_booted_is_refused_with_a_remedy(tree: Path) -> None:
    (tree / "sysroot").rmdir()
    done = cfsctl("--no-repo", "compute-karg", tree, status=5)
    assert done.stderr == "cfsctl: there is no /sysroot, which a bootable image needs (make it: mkdir sysroot)\n"
    assert cfsctl("--no-repo", "compute-karg", tree / "none", status=3).stdout == ""


def test_a_dump_is_taken_as_it_is() -> None:
    done = cfsctl("--no-repo", "compute-id", "--bootable", "--from-dump", "-", status=2)
    assert "taken as it is" in done.stderr
