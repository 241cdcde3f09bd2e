"""What a power cut leaves on btrfs, whose fsync(2) passes over files without a name, and forgets fs-verity's digest."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.commands import mkcomposefs, run
from vm import lab
from vm.checks.common import repository_with_image
from vm.lab import cfsctl


def check_what_is_made_outlasts_a_power_cut(directory: Path) -> None:
    """The file below a loop device has what was written to the device, and nothing that btrfs still holds back."""
    disk = lab.MEMORY / "disk"
    with disk.open("wb") as file:
        file.truncate(32 << 20)
    run("mkfs.btrfs", "--quiet", "--mixed", disk)
    run("mount", "-o", "loop,commit=300", disk, directory)
    enabled, images = directory / "enabled/repo", directory / "images"
    with lab.unmounted(directory):
        repository_with_image(directory / "enabled", "--insecure")
        images.mkdir()
        for name in "abc":
            (images / name).write_text("old")
        os.sync()
        # What comes later makes durable what was not: each is seen when it has ended.
        for name in "abc":  # the first fsync(2) since then may commit all, as syncfs(2) does
            mkcomposefs(directory / "enabled/tree", images / name)
        after_image = shutil.copyfile(disk, lab.MEMORY / "after-image")
        cfsctl("--repo", enabled, "verity", "enable")
        after_enabling = shutil.copyfile(disk, lab.MEMORY / "after-enabling")
        cfsctl("init", directory / "new")
        after_init = shutil.copyfile(disk, lab.MEMORY / "after-init")
        made = (images / "c").read_bytes()
    run("mount", "-o", "loop", after_image, directory)
    with lab.unmounted(directory):
        assert [(images / name).read_bytes() for name in "abc"] == [made] * 3
    for left, repository in ((after_enabling, enabled), (after_init, directory / "new")):
        run("mount", "-o", "loop", left, directory)
        with lab.unmounted(directory):
            cfsctl("--require-verity", "--repo", repository, "fsck")
    for path in (disk, after_image, after_enabling, after_init):
        path.unlink()
