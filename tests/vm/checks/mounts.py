"""Mounts that demand fs-verity of the kernel, and those that cannot."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from composefs.digest import SHA256, SHA512
from support.commands import run
from vm import lab
from vm.checks.common import BIG, SOME, error_of, measured, objects_of, replace, repository_with_image
from vm.lab import NOBODY, cfsctl


def _mountpoint(directory: Path) -> Path:
    path = directory / "mnt"
    path.mkdir()
    return path


def check_good_files_are_read_and_tampered_ones_refused(directory: Path) -> None:
    repository, _ = repository_with_image(directory)
    (directory / "tree/usr/share/other").write_bytes(SOME[::-1])
    (directory / "tree/usr/share/gone").write_bytes(SOME * 2)
    cfsctl("--repo", repository, "create-image", directory / "tree", "it")
    by_content = {path.read_bytes(): path for path in objects_of(repository).values()}
    replace(by_content[SOME], SOME)
    replace(by_content[SOME[::-1]], SOME[::-1].upper(), SHA512)
    by_content[SOME * 2].unlink()
    mountpoint = _mountpoint(directory)
    cfsctl("--repo", repository, "mount", "refs/it", mountpoint)
    with lab.unmounted(mountpoint):
        assert "verity=require" in Path("/proc/self/mountinfo").read_text()
        share = mountpoint / "usr/share"
        assert (share / "big").read_bytes() == BIG
        assert (share / "tiny").read_bytes() == b"tiny"
        assert error_of((share / "some").read_bytes) == errno.EIO
        assert error_of((share / "other").read_bytes) == errno.EIO
        assert error_of((share / "gone").read_bytes) == errno.ENOENT


def check_a_tampered_image_is_not_mounted(directory: Path) -> None:
    repository, image = repository_with_image(directory)
    path = objects_of(repository)[image]
    content = path.read_bytes()
    mountpoint = _mountpoint(directory)
    for changed, algorithm in ((content, None), (content[:-1] + b"x", SHA512)):
        replace(path, changed, algorithm)
        refused = cfsctl("--repo", repository, "mount", "refs/it", mountpoint, status=5)
        assert image in refused.stderr
        assert "verity" in refused.stderr
    cfsctl("--repo", repository, "create-image", directory / "tree", "it")
    lab.flip(path, 100)
    refused = cfsctl("--repo", repository, "mount", "refs/it", mountpoint, status=1)
    assert image in refused.stderr
    assert "Input/output error" in refused.stderr


def check_an_insecure_repository_is_mounted_without_verity(directory: Path) -> None:
    repository, _ = repository_with_image(directory, "--insecure")
    mountpoint = _mountpoint(directory)
    cfsctl("--repo", repository, "mount", "refs/it", mountpoint)
    with lab.unmounted(mountpoint):
        assert "verity=" not in Path("/proc/self/mountinfo").read_text()
        assert (mountpoint / "usr/share/big").read_bytes() == BIG


def check_an_image_on_tmpfs_is_mounted_by_a_loop_device(directory: Path) -> None:
    """This kernel mounts no EROFS image out of a file on tmpfs."""
    base = lab.MEMORY / "by-loop"
    base.mkdir()
    repository, _ = repository_with_image(base, "--insecure")
    cfsctl("--repo", repository, "mount", "refs/it", directory)
    with lab.unmounted(directory):
        assert (directory / "usr/share/big").read_bytes() == BIG
        assert list(Path("/sys/block").glob("loop*/loop/backing_file"))
    assert not list(Path("/sys/block").glob("loop*/loop/backing_file"))


def check_mount_8_mounts_an_image_of_a_known_digest_only(directory: Path) -> None:
    """mount(8) starts the installed mount.composefs, which is in /sbin here."""
    repository, image = repository_with_image(directory, "--algorithm", SHA256.meta_name)
    path = objects_of(repository)[image]
    mountpoint = _mountpoint(directory)

    def mount(options: str, status: int) -> str:
        options = f"basedir={repository}/objects,{options}"
        return run("mount", "-t", "composefs", "-o", options, path, mountpoint, status=status).stderr

    mount(f"digest={image}", 0)
    with lab.unmounted(mountpoint):
        assert "verity=require" in Path("/proc/self/mountinfo").read_text()
        assert (mountpoint / "usr/share/big").read_bytes() == BIG
    assert "Image has wrong fs-verity" in mount(f"digest={'0' * 64}", 1)
    replace(path, path.read_bytes())
    assert "Image has no fs-verity" in mount(f"digest={image}", 1)
    replace(next(path for path in objects_of(repository).values() if path.read_bytes() == SOME), SOME)
    mount("verity", 0)
    with lab.unmounted(mountpoint):
        assert error_of((mountpoint / "usr/share/some").read_bytes) == errno.EIO
    mount("ro", 0)
    with lab.unmounted(mountpoint):
        assert (mountpoint / "usr/share/some").read_bytes() == SOME


def check_fuse_demands_verity_too(directory: Path) -> None:
    repository, _ = repository_with_image(directory)
    by_content = {path.read_bytes(): path for path in objects_of(repository).values()}
    mountpoint = _mountpoint(directory)
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoint)
    share = mountpoint / "usr/share"
    try:
        assert "fuse" in Path("/proc/self/mountinfo").read_text()
        assert (share / "big").read_bytes() == BIG
        assert (share / "tiny").read_bytes() == b"tiny"
        assert (share / "some").read_bytes() == SOME
    finally:
        cfsctl("umount", mountpoint)
    replace(by_content[SOME], SOME)
    replace(by_content[BIG], BIG[::-1], SHA512)
    cfsctl("--repo", repository, "mount", "--fuse", "yes", "refs/it", mountpoint)
    try:
        assert error_of((share / "some").read_bytes) == errno.EIO
        assert error_of((share / "big").read_bytes) == errno.EIO
        assert (share / "tiny").read_bytes() == b"tiny"
    finally:
        cfsctl("umount", mountpoint)


def check_a_user_without_rights_has_a_secure_repository_too(directory: Path) -> None:
    """They may enable fs-verity for their files, and mount by FUSE, which shows the image to nobody else."""
    os.makedirs("/etc", exist_ok=True)
    Path("/etc/passwd").write_text(f"nobody:x:{NOBODY}:{NOBODY}::/:/bin/sh\n")
    Path("/etc/mtab").symlink_to("/proc/self/mounts")
    os.chmod("/dev/fuse", 0o666)  # as udev does
    os.chmod("/usr/bin/fusermount3", 0o4755)
    repository, _ = repository_with_image(directory)
    mountpoint = _mountpoint(directory)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    (directory / "tree/usr/share/new").write_bytes(SOME * 2)
    cfsctl("--repo", repository, "create-image", directory / "tree", "it", user=NOBODY)
    assert all(measured(path) == digest for digest, path in objects_of(repository).items())

    def read(path: Path) -> subprocess.CompletedProcess[str]:
        command = ["/bin/sh", "-c", 'read -r line < "$1" && echo "$line"', "sh", path]
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        return subprocess.run(command, capture_output=True, text=True, check=False, **user)

    mounted = cfsctl("--repo", repository, "mount", "refs/it", mountpoint, user=NOBODY)
    assert "trying FUSE" in mounted.stderr
    some, new = (mountpoint / "usr/share" / name for name in ("some", "new"))
    try:
        assert read(some).stdout == SOME.decode()
        assert error_of(some.read_bytes) == errno.EACCES
        (path,) = (path for path in objects_of(repository).values() if path.read_bytes() == SOME * 2)
        replace(path, SOME * 2)
        refused = read(new)
        assert refused.stdout == ""
        assert "Input/output error" in refused.stderr
    finally:
        cfsctl("umount", mountpoint, user=NOBODY)


def check_changes_to_a_secure_image_go_to_the_upper_directory(directory: Path) -> None:
    repository, _ = repository_with_image(directory)
    mountpoint = _mountpoint(directory)
    upper, work = directory / "upper", directory / "work"
    upper.mkdir()
    work.mkdir()
    paths = ("--upperdir", upper, "--workdir", work)
    cfsctl("--repo", repository, "mount", *paths, "--read-write", "refs/it", mountpoint)
    with (mountpoint / "usr/share/big").open("ab") as file:
        file.write(b"more")
    cfsctl("umount", mountpoint)
    assert (upper / "usr/share/big").read_bytes() == BIG + b"more"
    cfsctl("--repo", repository, "mount", *paths, "refs/it", mountpoint)
    assert (mountpoint / "usr/share/big").read_bytes() == BIG + b"more"
    assert error_of((mountpoint / "new").touch) == errno.EROFS
    cfsctl("umount", mountpoint)
