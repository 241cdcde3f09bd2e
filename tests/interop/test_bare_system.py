"""Systems where little is mounted, as in a chroot(1) that somebody has just made: no /proc, no /dev."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.commands import BIN, CFSCTL, cfsctl, run
from support.ostree_pull import extensions  # noqa: F401  a fixture

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"content" * 1000)
    (tmp_path / "tree/link").symlink_to("file")
    cfsctl("init", "--insecure", tmp_path / "repo")
    return tmp_path / "repo"


def without(place: str, repo: Path, *arguments: str | Path, status: int = 0) -> str:
    """Run cfsctl where nothing is mounted at ``place``; return what it says on standard error."""
    script = 'mount -t tmpfs none "$1" && shift && exec "$@"'
    words = [CFSCTL, "--repo", repo, *arguments]
    return run("unshare", "--mount", "sh", "-c", script, "sh", place, *words, status=status).stderr


def test_what_takes_proc_says_so(repo: Path) -> None:
    tree = repo.with_name("tree")
    missing = "/proc is not mounted (mount it: mount -t proc proc /proc)\n"
    for command, doing in (
        (("create-image", "--no-propagate-usr-to-root", tree), f"scanning {tree}/link"),
        (("ostree", "commit", f"--tree=dir={tree}", "--branch=main"), "running extension ostree"),
    ):
        assert without("/proc", repo, *command, status=9) == f"cfsctl: {doing}: {missing}"
    assert os.listdir(repo / "staging") == []
    assert without("/proc", repo, "fsck") == ""


@pytest.mark.root
def test_mounting_takes_proc_and_says_so(repo: Path) -> None:
    tree = repo.with_name("tree")
    cfsctl("--repo", repo, "create-image", "--no-propagate-usr-to-root", tree, "it")
    told = without("/proc", repo, "mount", "--fuse=no", "refs/it", tree, status=9)
    assert told.endswith(": the EROFS image: /proc is not mounted (mount it: mount -t proc proc /proc)\n")
    (repo.parent / "namespace").touch()
    script = 'mount --bind /proc/self/ns/user namespace && umount --lazy /proc && exec "$@"'
    helper = (BIN / "mount.composefs", "-o", "basedir=repo/objects,idmap=namespace", "repo/images/refs/it", "tree")
    told = run("unshare", "--mount", "sh", "-c", script, "sh", *helper, cwd=repo.parent, status=1).stderr
    missing = "/proc is not mounted (mount it: mount -t proc proc /proc)"
    assert told == f"mount.composefs: opening the user namespace namespace: {missing}\n"


def test_nothing_takes_dev(repo: Path) -> None:
    assert without("/dev", repo, "ostree", "commit", f"--tree=dir={repo.parent}/tree", "--branch=main") == ""
    assert without("/dev", repo, "fsck") == ""


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ('"$0" --repo "$1" fsck <&- 2>&-', 0),
        ('"$0" --repo "$1" ref list <&- >&- 2>&-', 1),
        ('mkfifo /dev/p; exec 3<>/dev/p 4>/dev/p 3>&-; "$0" --help >&4', 141),
    ],
    ids=["some descriptors closed", "all closed", "no reader"],
)
def test_nor_does_output_that_goes_nowhere(repo: Path, line: str, status: int) -> None:
    words = ("sh", "-c", f"mount -t tmpfs none /dev; {line}")
    assert run("unshare", "--mount", *words, CFSCTL, repo, status=status).stderr == ""
