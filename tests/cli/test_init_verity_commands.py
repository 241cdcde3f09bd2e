"""cfsctl init --ensure and --reset-metadata, and verity enable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.commands import cfsctl
from support.populated import Populated, populate

SHA256 = ("--algorithm", "fsverity-sha256-12", "--insecure")


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


def test_ensure(made: Populated, tmp_path: Path) -> None:
    assert "already initialized" in cfsctl("init", "--ensure", *SHA256, made.path).stdout
    (made.path / "meta.json").unlink()
    cfsctl("--repo", made.path, "--no-upgrade", "fsck")
    assert not (made.path / "meta.json").exists()
    assert "--ensure" in cfsctl("init", *SHA256, made.path, status=4).stderr
    assert cfsctl("init", "--ensure", *SHA256, made.path).stdout == f"Upgraded legacy repository at {made.path}\n"
    assert json.loads((made.path / "meta.json").read_text())["erofs_formats"] == {"default": 2}
    (made.path / "meta.json").unlink()
    told = json.loads(cfsctl("init", "--ensure", *SHA256, "--json", made.path).stdout)
    assert (told["created"], told["upgraded"], told["erofs_version"]) == (False, True, 2)
    cfsctl("--repo", made.path, "gc")
    told = json.loads(cfsctl("init", "--ensure", *SHA256, "--json", tmp_path / "new").stdout)
    assert (told["created"], told["upgraded"]) == (True, False)


def test_reset_metadata(made: Populated, tmp_path: Path) -> None:
    objects = made.ids()
    done = cfsctl("init", "--reset-metadata", *SHA256, "--erofs-version", "2", made.path)
    assert done.stdout.startswith(f"Initialized composefs repository at {made.path}\n")
    assert cfsctl("--repo", made.path, "images").stdout == "No images found\n"
    assert made.ids() == objects
    (tmp_path / "other/images").mkdir(parents=True)
    (tmp_path / "other/images/cat.jpeg").touch()
    cfsctl("init", "--reset-metadata", *SHA256, tmp_path / "other")
    assert (tmp_path / "other/images/cat.jpeg").exists(), "it was no repository"
    cfsctl("init", "--reset-metadata", "--ensure", *SHA256, made.path, status=2)


def test_reset_metadata_removes_no_name_where_the_new_metadata_cannot_be_had(made: Populated) -> None:
    meta = (made.path / "meta.json").read_bytes()
    images = cfsctl("--repo", made.path, "images", "--json").stdout
    assert "fs-verity" in cfsctl("init", "--reset-metadata", *SHA256[:2], made.path, status=9).stderr
    assert cfsctl("--repo", made.path, "images", "--json").stdout == images
    assert json.loads(images)["images"]
    assert (made.path / "meta.json").read_bytes() == meta
    cfsctl("--repo", made.path, "fsck")


@pytest.mark.parametrize(("name", "link"), [("objects", True), ("objects", False), ("meta.json", False)])
def test_reset_metadata_removes_no_name_where_something_is_in_the_way(made: Populated, name: str, link: bool) -> None:
    """Objects on another disk, behind a symlink; a file or a directory by mistake."""
    images = cfsctl("--repo", made.path, "images", "--json").stdout
    there, away = made.path / name, made.path / "away"
    there.rename(away)
    if link:
        there.symlink_to(away)
    elif name == "objects":
        there.touch()
    else:
        there.mkdir()
    failed = cfsctl("init", "--reset-metadata", *SHA256, made.path, status=5)
    assert str(there) in failed.stderr
    assert "away" in failed.stderr
    if there.is_dir() and not link:
        there.rmdir()
    else:
        there.unlink()
    away.rename(there)
    assert cfsctl("--repo", made.path, "images", "--json").stdout == images
    cfsctl("--repo", made.path, "fsck")


def test_verity_enable_where_there_is_none(made: Populated) -> None:
    """In the virtual machine it is done for real."""
    failed = cfsctl("--repo", made.path, "verity", "enable", status=9)
    assert f"{made.path} stays insecure: enabling fs-verity: " in failed.stderr
    assert "(its file system needs fs-verity: ext4 " in failed.stderr
    assert cfsctl("--repo", made.path, "--require-verity", "images", status=9).stdout == ""
