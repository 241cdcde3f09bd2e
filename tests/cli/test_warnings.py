"""The main job by a Python that takes what it warns of for an error, and tells of files that are not closed."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import BIN, CFSCTL, run
from support.oci_layout import simple, tar
from support.ostree_pull import LIBEXEC, extensions
from support.ostree_repo import make_tree
from support.server import serve

__all__ = ["extensions"]

STRICT = (sys.executable, "-P", "-X", "dev", "-W", "error")


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extensions: None) -> Callable[..., None]:
    """Run cfsctl on one repository by such a Python; its extensions run by such a one too."""
    directory = tmp_path / "ext"
    directory.mkdir()
    for name in ("ostree", "oci"):
        shutil.copy(LIBEXEC / f"{name}.json", directory)
        (directory / name).write_text(f'#!/bin/sh\nexec {" ".join(STRICT)} {BIN}/composefs-ext-{name} "$@"\n')
        (directory / name).chmod(0o755)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(directory))

    def cfsctl(*arguments: str | Path) -> None:
        done = run(*STRICT, CFSCTL, "-v", "-v", "--repo", tmp_path / "repo", *arguments)
        assert "Warning" not in done.stderr

    run(*STRICT, CFSCTL, "init", "--insecure", tmp_path / "repo")
    return cfsctl


def test_ostree_warns_of_nothing(tmp_path: Path, strict: Callable[..., None]) -> None:
    tree = make_tree(tmp_path / "tree")
    strict("ostree", "commit", f"--tree=dir={tree}", "--branch=made")
    strict("ostree", "export", "made", tmp_path / "archive")
    with serve(tmp_path / "archive") as server:
        strict("ostree", "pull", server.url, "made")
        strict("ostree", "untag", "made")
        strict("gc")
        strict("ostree", "pull", server.url, "made")
    strict("ostree", "fsck")
    strict("ls", "ostree/made", "/usr")


def test_oci_warns_of_nothing(tmp_path: Path, strict: Callable[..., None]) -> None:
    layout = simple("small")
    layout.add(layout.image(tar(large=random.Random(1).randbytes(3_000_000))), "large")
    layout.write(tmp_path / "layout")
    for tag in ("small", "large"):
        strict("oci", "pull", f"oci:{tmp_path}/layout:{tag}")
    strict("oci", "fsck")
    strict("fsck")
