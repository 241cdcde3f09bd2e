"""Content that is reflinked: on a file system that can, objects share the blocks of the repository pulled from."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import run
from support.ostree_modes import copy_repo
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.peers import require

pytestmark = [pytest.mark.usefixtures("extensions"), pytest.mark.root]

_FIEMAP = 0xC020660B
_EXTENT = "=QQQ16xI12x"


@pytest.fixture
def xfs(tmp_path: Path) -> Iterator[Path]:
    """A new XFS, which reflinks."""
    disk, mounted = tmp_path / "disk", tmp_path / "xfs"
    with open(disk, "wb") as file:
        file.truncate(400 << 20)
    mounted.mkdir()
    run(require("mkfs.xfs"), "-q", disk)
    run("mount", "-o", "loop", disk, mounted)
    yield mounted
    run("umount", mounted)


def blocks(path: Path) -> list[int]:
    """Where the extents of a file are on its disk."""
    with open(path, "rb") as file:
        request = bytearray(struct.pack("=QQIIII", 0, 1 << 62, 1, 0, 64, 0) + bytes(64 * 56))
        fcntl.ioctl(file, _FIEMAP, request)
    (count,) = struct.unpack_from("=I", request, 20)
    return [struct.unpack_from(_EXTENT, request, 32 + 56 * number)[1] for number in range(count)]


@pytest.mark.parametrize("mode", ["bare", "bare-user", "bare-user-only", "bare-split-xattrs"])
def test_objects_share_the_blocks_of_the_source(xfs: Path, mode: str) -> None:
    tree = make_tree(xfs / "tree")
    archive = make_repo(xfs / "archive")
    commit(archive, tree, "--canonical-permissions", "--no-xattrs")
    source = copy_repo(archive, xfs / "source", mode, BRANCH)
    expected = Target(xfs / "from-archive").json("pull-local", archive, BRANCH)
    target = Target(xfs / "target")
    assert target.json("pull-local", source, BRANCH) == expected
    run("sync", "-f", xfs)
    theirs = {path.read_bytes(): blocks(path) for path in (source / "objects").rglob("*.file") if path.is_file()}
    objects = [path for path in (target.path / "objects").rglob("*") if path.is_file()]
    shared = [path for path in objects if blocks(path) and theirs.get(path.read_bytes()) == blocks(path)]
    contents = {path.read_bytes() for path in objects} & set(theirs)
    assert len(contents) > 10
    assert {path.read_bytes() for path in shared} == contents
    # Out of an archive nothing can be shared: there it is deflated.
    other = xfs / "from-archive" / "objects"
    assert not any(blocks(path) == theirs.get(path.read_bytes()) for path in other.rglob("*") if path.is_file())


def test_what_is_committed_from_a_directory_shares_its_blocks(xfs: Path) -> None:
    tree = make_tree(xfs / "tree")
    target = Target(xfs / "target")
    target.ostree("commit", f"--tree=dir={tree}", "--branch=b", "--timestamp=@1")
    run("sync", "-f", xfs)
    (tool,) = [
        path for path in (target.path / "objects").rglob("*") if path.is_file() and path.stat().st_size > 300_000
    ]
    assert blocks(tool) == blocks(tree / "usr" / "bin" / "tool")
