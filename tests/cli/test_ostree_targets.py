"""What a pull meets in the repository that it pulls into, and mounting what was pulled, by the installed command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from composefs.linux.closing import Descriptor
from support.commands import cfsctl, the_error
from support.mounts import mounted
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An archive repository with one commit of half a megabyte."""
    make_tree(tmp_path / "tree")
    repo = make_repo(tmp_path / "source")
    commit(repo, tmp_path / "tree")
    return repo


def refuse(repo: Path, source: Path, status: int) -> str:
    """Pull, which must fail with one line; return it."""
    return the_error("--repo", repo, "ostree", "pull-local", source, BRANCH, status=status)


def test_a_missing_repository(source: Path, tmp_path: Path) -> None:
    repo = tmp_path / "missing"
    assert f"cfsctl init {repo}" in refuse(repo, source, status=3)
    assert not repo.exists()
    Target(repo).ostree("pull-local", source, BRANCH)


@pytest.mark.root
def test_a_read_only_repository(source: Path, tmp_path: Path) -> None:
    target = Target(tmp_path / "target")
    head = target.json("pull-local", source, BRANCH)["commit"]
    target.ostree("untag", BRANCH)
    before = target.names()
    with mounted(target.path, "--bind", "-o", "ro", str(target.path)):
        refused = refuse(target.path, source, status=7)
        remedy = "remount its file system writable, or name another repository with --repo"
        assert f"{target.path} is on a read-only file system ({remedy})" in refused
        for command in (("inspect", head), ("dump", head), ("compute-id", head), ("images",)):
            target.ostree(*command)
    assert target.names() == before
    target.ostree("pull-local", source, BRANCH)


@pytest.mark.root
def test_a_full_disk(source: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=300k", "tmpfs"):
        target = Target(tmp_path / "disk" / "repo")
        line = refuse(target.path, source, status=8)
        assert "No space left on device" in line
        assert "storing" in line or str(source) in line, "it names what there was no room for"
        assert target.names() == {}
        assert target.left_over() == []
        subprocess.run(["mount", "-o", "remount,size=3m", tmp_path / "disk"], check=True)
        target.ostree("pull-local", source, BRANCH)


@pytest.mark.parametrize("damage", ["empty", "short", "zeroed", "long"])
def test_a_damaged_object_that_is_here_already_is_repaired(source: Path, tmp_path: Path, damage: str) -> None:
    good = Target(tmp_path / "good")
    good.ostree("pull-local", source, BRANCH)
    target = Target(tmp_path / "target")
    for path in (good.path / "objects").glob("*/*"):
        content = path.read_bytes()
        bad = {
            "empty": b"",
            "short": content[: len(content) // 2],
            "zeroed": bytes(len(content)),
            "long": content + bytes(4096),
        }[damage]
        here = target.path / path.relative_to(good.path)
        here.parent.mkdir(exist_ok=True)
        here.write_bytes(bad)
        here.chmod(0o444)
    assert target.json("pull-local", source, BRANCH)["files_fetched"] > 10
    assert target.names() == good.names()
    for path in (good.path / "objects").glob("*/*"):
        assert (target.path / path.relative_to(good.path)).read_bytes() == path.read_bytes()
    cfsctl("--repo", target.path, "fsck")


@pytest.mark.root
def test_mount(source: Path, tmp_path: Path) -> None:
    target = Target(tmp_path / "target")
    head = target.json("pull-local", source, BRANCH)["commit"]
    for name in ("mnt", "up", "work"):
        (tmp_path / name).mkdir()
    mountpoint = tmp_path / "mnt"
    tool = (tmp_path / "tree/usr/bin/tool").read_bytes()
    writable = ("--upperdir", tmp_path / "up", "--workdir", tmp_path / "work", "--read-write")
    for name, options in ((BRANCH, ()), (head, writable)):
        assert target.ostree("mount", *options, name, mountpoint).stdout == ""
        try:
            assert (mountpoint / "usr/bin/tool").read_bytes() == tool
            if options:
                (mountpoint / "usr/new").write_text("new")
        finally:
            subprocess.run(["umount", mountpoint], check=True)
    assert (tmp_path / "up/usr/new").read_text() == "new"
    refused = target.ostree("mount", "no/such", mountpoint, status=3)
    assert "'no/such' is not a known ostree ref" in refused.stderr
    refused = target.ostree("mount", BRANCH, tmp_path / "nowhere", status=3)
    assert f"{tmp_path}/nowhere" in refused.stderr


@pytest.mark.parametrize("place", ["/proc/self/fd", "/dev/fd"])
def test_a_repository_by_a_descriptor(source: Path, tmp_path: Path, place: str) -> None:
    """Which is another one in the extension's processes."""
    target = Target(tmp_path / "target")
    with Descriptor(os.open(target.path, os.O_RDONLY)) as fd:
        repo = ("--repo", f"{place}/{fd}")
        cfsctl(*repo, "ostree", "pull-local", source, BRANCH, pass_fds=[fd])
        cfsctl(*repo, "ostree", "commit", f"--tree=dir={tmp_path}/tree", "--branch=other", pass_fds=[fd])
    assert target.left_over() == []
    assert len(target.json("images")["images"]) == 2
