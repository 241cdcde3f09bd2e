"""What a power cut leaves of a secure repository on btrfs, whose fsync(2) forgets which fs-verity a file has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.commands import run
from vm import lab
from vm.checks.common import repository_with_image
from vm.lab import cfsctl


def check_a_repository_made_secure_outlasts_a_power_cut(directory: Path) -> None:
    """The file below a loop device has what was written to the device, and nothing that btrfs still holds back."""
    disk, left = (lab.MEMORY / name for name in ("disk", "left"))
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    run("mkfs.btrfs", "--quiet", "--mixed", disk)
    run("mount", "-o", "loop,commit=300", disk, directory)
    with lab.unmounted(directory):
        repository_with_image(directory / "enabled", "--insecure")
        os.sync()
        cfsctl("--repo", directory / "enabled/repo", "verity", "enable")
        cfsctl("init", directory / "new")
        shutil.copyfile(disk, left)
    run("mount", "-o", "loop", left, directory)
    with lab.unmounted(directory):
        for repository in ("new", "enabled/repo"):
            cfsctl("--require-verity", "--repo", directory / repository, "fsck")
    for path in (disk, left):
        path.unlink()
