"""Machines for which there is no ISA-L, all but x86-64 and ARM of 64 bits: zlib inflates there, to the same."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from support.commands import cfsctl
from support.oci_layout import simple, tar
from support.ostree_pull import Target, extensions, start_by
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.server import serve

__all__ = ["extensions"]

pytestmark = pytest.mark.usefixtures("extensions")

SIZES = (100_000, 3_000_000)
"""Of files that are inflated in one call, and in pieces."""


@pytest.fixture
def without_isal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, extensions: None) -> None:
    for name in ("ostree", "oci"):
        start_by('import sys; sys.modules["isal"] = None', name, tmp_path / "ext", monkeypatch)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = make_tree(tmp_path / "tree", files=8)
    for size in SIZES:
        (path / f"usr/of-{size}").write_bytes(random.Random(size).randbytes(size // 2) + bytes(size // 2))
    return path


@pytest.mark.usefixtures("without_isal")
def test_an_ostree_commit_is_pulled(tmp_path: Path, tree: Path) -> None:
    head = commit(make_repo(tmp_path / "source"), tree)
    target = Target(tmp_path / "target")
    with serve(tmp_path / "source") as server:
        assert target.json("pull", server.url, BRANCH)["commit"] == head
        target.ostree("fsck")
        large = max((tmp_path / "source/objects").rglob("*.filez"), key=lambda path: path.stat().st_size)
        data = large.read_bytes()
        large.write_bytes(data[: len(data) // 2] + bytes(1000))
        fresh = Target(tmp_path / "fresh")
        told = fresh.ostree("pull", server.url, BRANCH, status=5).stderr
        assert f"/{large.parent.name}/{large.name}: it" in told
        assert fresh.left_over() == []


@pytest.mark.usefixtures("without_isal")
def test_a_commit_is_made_of_a_tarball(tmp_path: Path) -> None:
    archive = tar(small=b"small", large=random.Random(1).randbytes(3_000_000))
    (tmp_path / "plain").write_bytes(archive)
    (tmp_path / "whole").write_bytes(gzip.compress(archive[:1_000_000]) + gzip.compress(archive[1_000_000:]))
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:-10])
    target = Target(tmp_path / "target")

    def made(name: str, status: int = 0) -> str:
        words = ("-b", "main", "--timestamp=@0", "--tar-autocreate-parents", f"--tree=tar={tmp_path}/{name}")
        done = target.ostree("commit", *words, status=status)
        return done.stderr or done.stdout.split()[0]

    assert made("whole") == made("plain")
    assert f"{tmp_path}/cut is damaged: " in made("cut", 5)


def test_an_image_is_pulled(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    layout = simple("small")
    layout.add(layout.image(tar(large=random.Random(1).randbytes(3_000_000))), "large")
    layout.write(tmp_path / "layout")
    found = []
    for name in ("isal", "zlib"):
        if name == "zlib":
            request.getfixturevalue("without_isal")
        target = Target(tmp_path / name)
        for tag in ("small", "large"):
            cfsctl("--repo", target.path, "oci", "pull", f"oci:{tmp_path}/layout:{tag}")
        found.append(target.names())
    assert found[0] == found[1]
