"""Other people's programs, which tests compare with.  A missing one fails the test and names the package."""

from __future__ import annotations

import os
import shutil

_PACKAGES = {
    "dpkg-buildpackage": "dpkg-dev",
    "go": "golang-go",
    "fsck.erofs": "erofs-utils",
    "fusermount3": "fuse3",
    "dump.erofs": "erofs-utils",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.erofs": "erofs-utils",
    "mkfs.ext4": "e2fsprogs",
    "nginx": "nginx-light",
    "qemu-system-x86_64": "qemu-system-x86",
}


def require(command: str) -> str:
    """Return the path of a command, or fail the test with the package that has it."""
    # A user's PATH has no sbin, where mkfs and nginx are.
    path = shutil.which(command, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        import pytest  # which the virtual machine has not got

        pytest.fail(f"{command} is not installed: apt-get install {_PACKAGES.get(command, command)}", pytrace=False)
    return path
