"""The installed composefs-info on what libcomposefs' tests try: its text, filters, digests, an impossible image."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from support import peers
from support.c_cases import LAX, TAKEN
from support.commands import BIN, mkcomposefs, run
from support.dumps import recorded
from support.images import Patch, make_image

INFO = str(BIN / "composefs-info")
ANSWERS = recorded("c-cases.json")
CASES = {**TAKEN, **LAX}


@pytest.fixture
def kinds(tmp_path: Path) -> Path:
    (tmp_path / "dump").write_text(TAKEN["kinds"])
    mkcomposefs("--from-file", tmp_path / "dump", tmp_path / "image")
    return tmp_path / "image"


@pytest.mark.parametrize("name", CASES)
def test_the_text_is_that_of_libcomposefs(name: str, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text(CASES[name])
    mkcomposefs("--from-file", tmp_path / "dump", tmp_path / "image")
    for command in ("dump", "ls"):
        text = subprocess.run([INFO, command, tmp_path / "image"], capture_output=True, check=True).stdout
        assert hashlib.sha256(text).hexdigest() == ANSWERS[name][command], text[:2000]


def test_filters_show_the_root_and_these_entries_of_it(kinds: Path) -> None:
    text = run(INFO, "--filter=char", "--filter=dir", "--filter=link", "dump", kinds).stdout
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert [name.split("/n")[0] for name in lines] == ["/", "/char", "/dir", "/dir", "/dir/object", "/link"]
    assert lines["/"].startswith("/ 4096 40555 ")
    assert "trusted.on=root" in lines["/"]
    assert lines["/char"].startswith("/char 0 20666 ")
    assert lines["/link"].endswith(" target - -")
    assert run(INFO, "--filter=dir/object", "ls", kinds).stdout == "", "a name, and not a path"


def test_files_are_measured_as_the_kernel_would(tmp_path: Path) -> None:
    peers.require("fsverity")
    files = []
    for number, content in enumerate((b"", b"hello\n", bytes(4096), bytes(4097), b"x" * 600_000)):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(content)
    printed = run("fsverity", "digest", "--hash-alg=sha256", *files).stdout.splitlines()
    assert run(INFO, "measure-file", *files).stdout.splitlines() == [line.split()[0].split(":")[1] for line in printed]


def test_a_whiteout_with_two_names_is_refused(tmp_path: Path) -> None:
    """A whiteout says that there is nothing, which cannot have two names; libcomposefs once freed it twice."""
    image = make_image("/gone 0 20000 1 0 0 0 0.0 - - -", "/other 0 100644 1 0 0 0 0.0 - - -")
    patch = Patch(image)
    inode = patch.inode("/gone")
    wide = bool(image[inode] & 1)
    (tmp_path / "good").write_bytes(image)
    run(INFO, "dump", tmp_path / "good")
    (tmp_path / "bad").write_bytes(patch.put(inode + (44 if wide else 6), "<I" if wide else "<H", 252))
    refused = run(INFO, "dump", tmp_path / "bad", status=1)
    assert refused.stderr.count("\n") == 1
    assert "whiteout" in refused.stderr


def test_help_tells_every_command(kinds: Path) -> None:
    text = run(INFO, "--help").stdout
    for command in ("ls", "dump", "objects", "missing-objects", "measure-file"):
        assert f"\n  {command} " in text
        if command != "measure-file":
            run(INFO, "--basedir=.", command, kinds)
