"""What libcomposefs' tests try with mounts: random directories look the same after mkcomposefs and mount.composefs."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.commands import BIN, cfsctl, mkcomposefs, run
from support.random_tree import random_tree, shown

pytestmark = pytest.mark.root

HELPER = BIN / "mount.composefs"
OVERLAY = ("trusted.overlay.", "user.overlay.")


@contextmanager
def composefs(image: Path, objects: Path, mountpoint: Path) -> Iterator[Path]:
    mountpoint.mkdir(exist_ok=True)
    run(HELPER, "-o", f"basedir={objects}", image, mountpoint)
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


@contextmanager
def mounted(mountpoint: Path, *arguments: str) -> Iterator[None]:
    run("mount", *arguments, mountpoint)
    try:
        yield
    finally:
        run("umount", mountpoint)


@pytest.mark.parametrize("odd_names", [False, True], ids=["words", "bytes"])
@pytest.mark.parametrize("seed", [11, 12])
def test_a_random_directory(seed: int, odd_names: bool, tmp_path: Path) -> None:
    tree = random_tree(seed, tmp_path / "tree", odd_names=odd_names, devices=True)
    image, objects = tmp_path / "image", tmp_path / "objects"
    digest = mkcomposefs("--hardlinks", "--print-digest", f"--digest-store={objects}", tree, image).stdout
    with composefs(image, objects, tmp_path / "mnt") as mountpoint:
        assert shown(mountpoint) == shown(tree)
        assert mkcomposefs("--hardlinks", "--print-digest-only", mountpoint).stdout == digest


def test_without_hard_links_each_name_is_a_file_of_its_own(tmp_path: Path) -> None:
    tree = random_tree(13, tmp_path / "tree")
    image, objects = tmp_path / "image", tmp_path / "objects"
    mkcomposefs(f"--digest-store={objects}", tree, image)
    with composefs(image, objects, tmp_path / "mnt") as mountpoint:
        assert shown(mountpoint, links=False) == shown(tree, links=False)


def test_programs_of_this_system(tmp_path: Path) -> None:
    """A tree that nobody made for tests: /usr/bin, or what of it there is."""
    source = Path("/usr/bin").resolve()
    image, objects = tmp_path / "image", tmp_path / "objects"
    digest = mkcomposefs("--print-digest", f"--digest-store={objects}", source, image).stdout
    assert mkcomposefs("--print-digest-only", source).stdout == digest
    run("fsck.erofs", image)
    with composefs(image, objects, tmp_path / "mnt") as mountpoint:
        assert shown(mountpoint, links=False) == shown(source, links=False)
        assert mkcomposefs("--print-digest-only", mountpoint).stdout == digest


def test_whiteouts_become_what_another_overlay_takes_for_them(tmp_path: Path) -> None:
    """A whiteout that an overlay shows must not be a whiteout of that overlay (overlayfs.rst, "Nesting")."""
    tree = random_tree(14, tmp_path / "tree", whiteouts=True)
    image, objects = tmp_path / "image", tmp_path / "objects"
    mkcomposefs("--hardlinks", f"--digest-store={objects}", tree, image)
    count = 0
    with composefs(image, objects, tmp_path / "mnt") as mountpoint:
        found = shown(mountpoint)
        for path, (mode, owner, group, device, time, *rest) in shown(tree).items():
            is_whiteout = stat.S_ISCHR(int(str(mode))) and not device
            count += is_whiteout
            kind = int(str(mode)) & 0o7777 | stat.S_IFREG if is_whiteout else mode
            assert found[path][:5] == (kind, owner, group, device, time)
            if is_whiteout:
                assert "user.overlay.whiteout" in str(found[path][-1])
                assert found[path][-2] == b""
            elif stat.S_ISREG(int(str(mode))):
                assert found[path][-2:] == tuple(rest[-2:])
    assert count > 5


def test_an_upper_directory_becomes_a_layer(tmp_path: Path) -> None:
    """Whiteouts of one upper directory are names of one device; in an image each is a file of its own."""
    repo, disk = tmp_path / "repo", tmp_path / "disk"
    mountpoint, layer = tmp_path / "mnt", tmp_path / "layer"
    for directory in (disk, mountpoint, layer):
        directory.mkdir()
    cfsctl("init", "--insecure", repo)
    with mounted(disk, "-t", "tmpfs", "none"):
        lower, upper = disk / "lower", disk / "upper"
        for directory in (lower / "usr" / "d", lower / "usr" / "e", upper, disk / "work"):
            directory.mkdir(parents=True)
        for name in ("d/1", "d/2", "d/3", "e/1", "e/2"):
            (lower / "usr" / name).write_text(name)
        options = f"lowerdir={lower},upperdir={upper},workdir={disk}/work"
        with mounted(mountpoint, "-t", "overlay", "-o", options, "none"):
            for name in ("d/1", "d/2", "e/1"):
                (mountpoint / "usr" / name).unlink()
            wanted = shown(mountpoint / "usr")
        assert (upper / "usr" / "d" / "1").stat().st_nlink > 3
        cfsctl("--repo", repo, "--erofs-version=1", "create-image", "--no-propagate-usr-to-root", upper, "upper")
        cfsctl("--repo", repo, "mount", "refs/upper", layer)
        try:
            with mounted(mountpoint, "-t", "overlay", "-o", f"lowerdir={layer}:{lower}", "none"):
                found = shown(mountpoint / "usr")
        finally:
            cfsctl("umount", layer)
    assert [path for path in wanted if path.endswith((b"1", b"2", b"3"))] == [b"/d/3", b"/e/2"]
    assert list(found) == list(wanted)


@pytest.mark.parametrize("seed", [15, 16])
def test_fuse_shows_the_same(seed: int, tmp_path: Path) -> None:
    tree = random_tree(seed, tmp_path / "tree", odd_names=seed % 2 == 0, devices=True)
    repo = tmp_path / "repo"
    cfsctl("init", "--insecure", repo)
    options = ("--no-propagate-usr-to-root", "--xattrs", "keep-user-xattrs")
    image = cfsctl("--repo", repo, "create-image", *options, tree, "it").stdout
    (tmp_path / "mnt").mkdir()
    cfsctl("--repo", repo, "mount", "--fuse", "yes", "refs/it", tmp_path / "mnt")
    try:
        found = {
            path: (*each[:-1], {name: value for name, value in each[-1].items() if not name.startswith(OVERLAY)})
            for path, each in shown(tmp_path / "mnt").items()
            if isinstance(each[-1], dict)
        }
        assert found == shown(tree)
        assert cfsctl("--repo", repo, "create-image", *options, tmp_path / "mnt", "again").stdout == image
    finally:
        cfsctl("umount", tmp_path / "mnt")


@pytest.mark.parametrize("version", [0, 1, 2])
def test_acls_are_shown_in_every_format(version: int, tmp_path: Path) -> None:
    """The header of format 2 never tells that there are any."""
    tree, repo, mountpoint = tmp_path / "tree", tmp_path / "repo", tmp_path / "mnt"
    tree.mkdir()
    mountpoint.mkdir()
    (tree / "file").touch()
    # The owner, user 1000, the group, the mask, and others.
    entries = ((1, 6, 2**32 - 1), (2, 4, 1000), (4, 0, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(tree / "file", "system.posix_acl_access", acl)
    cfsctl("init", "--insecure", f"--erofs-version={version}", repo)
    cfsctl("--repo", repo, "create-image", "--no-propagate-usr-to-root", tree, "it")
    cfsctl("--repo", repo, "mount", "refs/it", mountpoint)
    try:
        assert os.getxattr(mountpoint / "file", "system.posix_acl_access") == acl
    finally:
        cfsctl("umount", mountpoint)
