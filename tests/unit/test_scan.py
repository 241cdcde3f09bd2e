"""Directories become trees: what is taken over, what options leave out, and what happens while files change."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from composefs.digest import SHA256, SHA512
from composefs.errors import ConflictError, FormatError, NotFoundError
from composefs.fsverity import digest_bytes
from composefs.scan import ScanOptions, scan_directory
from composefs.tree import Node, walk
from support.nested import nest


def children(node: Node) -> dict[bytes, Node]:
    assert node.children is not None
    return node.children


def scan(path: Path, **options: object) -> dict[bytes, Node]:
    return children(scan_directory(path, SHA256, options=ScanOptions(**options)).root)


def test_types_times_and_names(tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir(mode=0o750)
    os.symlink(b"no\xff\nwhere", os.fsencode(top) + b"/link\xff")
    os.mkfifo(top / "fifo", 0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(top / "socket"))
    (top / "empty").touch()
    (top / "small").write_bytes(b"s" * 64)
    (top / "large").write_bytes(b"l" * 65)
    (top / "d").mkdir()
    (top / "d" / "x").touch()
    os.utime(top / "empty", ns=(0, -1))
    tree = scan_directory(str(top), SHA256)
    found = children(tree.root)
    assert list(found) == [b"d", b"empty", b"fifo", b"large", b"link\xff", b"small", b"socket"]
    assert stat.S_IMODE(tree.root.mode) == 0o750
    assert found[b"link\xff"].payload == b"no\xff\nwhere"
    assert found[b"link\xff"].size == 9
    assert found[b"empty"].mtime == (-1, 999_999_999)
    assert (found[b"small"].content, found[b"small"].digest) == (b"s" * 64, None)
    assert (found[b"large"].content, found[b"large"].digest) == (None, digest_bytes(b"l" * 65, SHA256))
    assert stat.S_ISFIFO(found[b"fifo"].mode)
    assert stat.S_ISSOCK(found[b"socket"].mode)
    assert tree.objects().keys() == {digest_bytes(b"l" * 65, SHA256).hex()}
    assert [path for path, *_ in walk(tree.root)][:2] == [b"/d", b"/d/x"]


def test_hard_links(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "first").write_bytes(b"x" * 100)
    os.link(tmp_path / "b" / "first", tmp_path / "c")
    os.link(tmp_path / "b" / "first", tmp_path / "d")
    os.symlink("target", tmp_path / "s")
    os.link(tmp_path / "s", tmp_path / "t", follow_symlinks=False)
    calls = []

    def store(fd: int) -> str:
        calls.append(os.read(fd, 200))
        return digest_bytes(calls[-1], SHA256).hex()

    root = scan_directory(tmp_path, SHA256, store=store).root
    found = children(root)
    first = children(found[b"b"])[b"first"]
    assert found[b"c"] is found[b"d"] is first
    assert (first.nlink, first.home) == (3, (found[b"b"], b"first"))
    assert found[b"s"] is found[b"t"]
    assert calls == [b"x" * 100]
    apart = scan(tmp_path, hardlinks=False)
    assert apart[b"c"] is not apart[b"d"]
    assert (apart[b"c"].nlink, apart[b"c"].home) == (1, None)


def test_a_link_from_outside_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").touch()
    os.link(tmp_path / "in" / "file", tmp_path / "out")
    node = scan(tmp_path / "in")[b"file"]
    assert (node.nlink, node.home) == (1, None)


def test_options(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    os.setxattr(tmp_path / "file", "user.x", b"\0y")
    (tmp_path / "other").write_bytes(b"2")
    os.setxattr(tmp_path / "other", "user.x", b"\0y")
    found = scan(tmp_path)
    assert found[b"file"].xattrs[b"user.x"] == b"\0y"
    assert found[b"file"].xattrs is found[b"other"].xattrs
    assert scan(tmp_path, xattrs="user")[b"file"].xattrs == {b"user.x": b"\0y"}
    assert scan(tmp_path, xattrs="none")[b"file"].xattrs == {}
    assert scan(tmp_path, use_epoch=True)[b"file"].mtime == (0, 0)


@pytest.mark.root
def test_devices(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "only root can make device nodes"
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tmp_path / "big", stat.S_IFBLK | 0o600, os.makedev(259, 65000))
    os.mknod(tmp_path / "white", stat.S_IFCHR, 0)
    os.setxattr(tmp_path / "null", "trusted.overlay.x", b"y")
    found = scan(tmp_path)
    assert found[b"null"].rdev == 0x103
    assert found[b"null"].xattrs[b"trusted.overlay.x"] == b"y"
    assert found[b"big"].rdev == (65000 & 0xFF) | 259 << 8 | (65000 & 0xFFF00) << 12
    assert found[b"white"].rdev == 0
    assert scan(tmp_path, devices=False) == {}


def test_the_root_may_be_a_link_only_where_that_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    os.symlink("top", tmp_path / "link")
    scan(tmp_path / "link")
    with pytest.raises(NotFoundError, match="is a symlink, not a directory"):
        scan(tmp_path / "link", follow_root=False)
    scan_directory(f"{tmp_path}/link/", SHA256, options=ScanOptions(follow_root=False))
    with pytest.raises(NotFoundError, match="gone"):
        scan(tmp_path / "gone")
    with pytest.raises(NotFoundError, match="is not a directory"):
        scan_directory(__file__, SHA256)


def test_depth_costs_no_recursion_and_no_descriptors(tmp_path: Path) -> None:
    depth = 1200
    nest(tmp_path, depth)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        tree = scan_directory(tmp_path, SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # pytest's own cleaning is recursive.
        subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)
    assert sum(1 for _ in walk(tree.root)) == depth


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / "file"
    file.write_bytes(b"x" * 1000)

    def store(fd: int) -> str:
        with file.open("ab") as other:
            other.write(b"more")
        return "00" * 32

    with pytest.raises(ConflictError, match=r"/d/file changed while it was read"):
        scan_directory(tmp_path, SHA256, store=store)


def test_a_small_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")

    def read(fd: int, size: int, position: int) -> bytes:
        with (tmp_path / "file").open("ab") as other:
            other.write(b"more")
        return pread(fd, size, position)

    pread = os.pread
    monkeypatch.setattr("composefs.scan.os.pread", read)
    with pytest.raises(ConflictError, match=r"/file changed while it was read"):
        scan_directory(tmp_path, SHA256)


def test_a_file_that_is_replaced_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "new").write_bytes(b"y")

    def replace(path: str | bytes, flags: int, **more: int) -> int:
        if os.fsencode(path) == b"file":
            (tmp_path / "new").replace(tmp_path / "file")
        return opens(path, flags, **more)

    opens = os.open
    monkeypatch.setattr("composefs.scan.os.open", replace)
    with pytest.raises(ConflictError, match=r"/file was replaced while it was read"):
        scan_directory(tmp_path, SHA256)


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(b"x" * 1000)

    def store(fd: int) -> str:
        (tmp_path / "b").unlink()
        return "00" * 32

    with pytest.raises(NotFoundError, match=r"scanning .*/b: No such file"):
        scan_directory(tmp_path, SHA256, store=store)


def test_a_directory_that_is_moved_away(tmp_path: Path) -> None:
    (tmp_path / "top" / "d").mkdir(parents=True)
    (tmp_path / "top" / "d" / "file").write_bytes(b"x" * 1000)
    (tmp_path / "elsewhere").mkdir()

    def store(fd: int) -> str:
        (tmp_path / "top" / "d").rename(tmp_path / "elsewhere" / "d")
        return "00" * 32

    with pytest.raises(ConflictError, match="moved while it was read"):
        scan_directory(tmp_path / "top", SHA256, store=store)


def test_a_store_of_the_wrong_algorithm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)
    with pytest.raises(FormatError, match="sha512"):
        scan_directory(tmp_path, SHA512, store=lambda fd: "00" * 32)


def test_many_names_are_reported_while_they_are_met(tmp_path: Path) -> None:
    """However little there is to hash: of a million symlinks one wants to see that something happens."""
    (tmp_path / "many").mkdir()
    for number in range(17_000):
        os.symlink("x", tmp_path / f"many/{number}")
    (tmp_path / "one").write_bytes(bytes(65))
    reports: list[int] = []
    scan_directory(tmp_path, SHA256, processes=2, report=reports.append)
    assert reports == [0, 1]


def test_nothing_is_started_for_names_that_nobody_wants_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(17_000):
        os.symlink("x", tmp_path / f"{number}")
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a process is started"))
    assert len(children(scan_directory(tmp_path, SHA256, processes=2).root)) == 17_000
