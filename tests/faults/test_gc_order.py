"""The order in which garbage goes, as strace sees it: names, their directories synced, and only then objects."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from composefs.repository import Publication, RefRemoval, Repository
from support import peers
from support.commands import CFSCTL, TIMEOUT
from support.populated import populate


def test_no_name_outlives_its_object(tmp_path: Path) -> None:
    made = populate(tmp_path / "repo")
    with Repository.open(made.path, writable=True) as repository:
        refs = [RefRemoval("oci/team/app:1", "flat")]
        repository.publish(Publication(remove_refs=refs, remove_image_refs=["os/1"]))
    log = tmp_path / "log"
    command = [peers.require("strace"), "-qq", "-y", "-e", "trace=unlinkat,fsync", "-o", str(log), CFSCTL]
    subprocess.run([*command, "--repo", str(made.path), "gc"], check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL)
    steps = []
    for line in log.read_text().splitlines():
        match = re.match(rf"(\w+)\(\d+<{re.escape(str(made.path))}/(\w+)", line)
        if match and match[2] != "staging":
            steps.append((match[1], match[2]))
    names = [("unlinkat", "streams")] * 2, [("unlinkat", "images")] * 2
    objects = [("unlinkat", "objects")] * 11
    assert steps == [*names[0], ("fsync", "streams"), *names[1], ("fsync", "images"), *objects]
