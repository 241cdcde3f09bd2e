"""The installed mkcomposefs on what libcomposefs' tests try: odd dumps, bad dumps, random directories, objects."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from support import peers
from support.c_cases import LAX, OTHERWISE, REFUSED, TAKEN
from support.commands import BIN, MKCOMPOSEFS, mkcomposefs, run
from support.dumps import recorded
from support.random_tree import random_tree

INFO = str(BIN / "composefs-info")
ANSWERS = recorded("c-cases.json")
CASES = {**TAKEN, **LAX}
FORMATS = {
    "v0": ("--min-version=0", "--max-version=0"),
    "v1": ("--min-version=1", "--max-version=1"),
    "auto": (),
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def dump_of(image: Path) -> bytes:
    return subprocess.run([INFO, "dump", image], capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", CASES)
def test_odd_dumps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They become the images that libcomposefs makes, which fsck.erofs likes, and which their own dumps make again."""
    peers.require("fsck.erofs")
    dump, image, again = tmp_path / "dump", tmp_path / "image", tmp_path / "again"
    dump.write_text(CASES[name])
    if name not in LAX:
        monkeypatch.setenv("CFS_PARSE_STRICT", "1")
    for key, options in FORMATS.items():
        mkcomposefs(*options, "--from-file", dump, image)
        assert sha256(image) == ANSWERS[name][key], key
        run("fsck.erofs", image)
        text = dump_of(image)
        (tmp_path / "text").write_bytes(text)
        mkcomposefs(*options, "--from-file", tmp_path / "text", again)
        assert (again.read_bytes() == image.read_bytes()) == (name != OTHERWISE), key
        assert name != OTHERWISE or dump_of(again) == text


@pytest.mark.parametrize("name", LAX)
def test_odd_dumps_that_strict_parsing_refuses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dump").write_text(LAX[name])
    monkeypatch.setenv("CFS_PARSE_STRICT", "1")
    assert "dump line " in mkcomposefs("--from-file", tmp_path / "dump", tmp_path / "image", status=1).stderr
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("name", REFUSED)
def test_bad_dumps(name: str, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(REFUSED[name])
    refused = mkcomposefs("--from-file", tmp_path / "dump", tmp_path / "image", status=1)
    assert refused.stderr.startswith("mkcomposefs: ")
    assert refused.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["dump"]


@pytest.mark.parametrize("odd_names", [False, True], ids=["words", "bytes"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_directories(seed: int, odd_names: bool, tmp_path: Path) -> None:
    peers.require("fsck.erofs")
    root = os.geteuid() == 0
    tree = random_tree(seed, tmp_path / "tree", odd_names=odd_names, devices=root, whiteouts=root and seed == 2)
    image, again, objects = tmp_path / "image", tmp_path / "again", tmp_path / "objects"
    printed = mkcomposefs("--print-digest", f"--digest-store={objects}", tree, image).stdout
    assert mkcomposefs("--print-digest-only", tree).stdout == printed
    run("fsck.erofs", image)
    (tmp_path / "text").write_bytes(dump_of(image))
    mkcomposefs("--from-file", tmp_path / "text", again)
    assert again.read_bytes() == image.read_bytes()
    large = {path.read_bytes() for path in tree.rglob("*") if path.is_file() and path.lstat().st_size > 64}
    stored = [path for path in objects.rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in stored} == large
    assert len(stored) == len(large), "what is in two files is one object"
    assert run(INFO, f"--basedir={objects}", "missing-objects", image).stdout == ""
    stored[0].unlink()
    assert run(INFO, f"--basedir={objects}", "missing-objects", image).stdout == (
        f"{stored[0].parent.name}/{stored[0].name}\n"
    )


@pytest.mark.parametrize(("size", "objects"), [(4, 0), (64, 0), (65, 1), (1024, 1)])
def test_small_files_are_in_the_image_and_others_are_objects(size: int, objects: int, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(bytes(size))
    mkcomposefs(f"--digest-store={tmp_path}/objects", tmp_path / "tree", tmp_path / "image")
    assert len([path for path in (tmp_path / "objects").rglob("*") if path.is_file()]) == objects


def test_an_image_that_is_handed_over_as_a_descriptor(tmp_path: Path) -> None:
    """As libcomposefs' manual has it for those who drop all rights: nothing is opened but /proc/self/fd/3."""
    (tmp_path / "dump").write_text(TAKEN["kinds"])
    with (tmp_path / "image").open("wb") as image, (tmp_path / "dump").open("rb") as dump:
        script = f'exec 3>&1 1>/dev/null; exec "{MKCOMPOSEFS}" --from-file - /proc/self/fd/3'
        subprocess.run(["sh", "-c", script], stdin=dump, stdout=image, check=True)
    assert sha256(tmp_path / "image") == ANSWERS["kinds"]["auto"]
