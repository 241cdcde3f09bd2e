"""What a power cut leaves of files that commands write outside of repositories: on a boot partition.

As in test_power_cut.py a disk is followed that forgets whatever is not synced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from support import strace
from support.commands import CFSCTL, run
from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.strace import Call


class Files:
    """Follows calls; ``unwritten`` are files whose content a power cut may undo, ``unnamed`` paths whose names."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"
        self.unwritten: set[str] = set()
        self.unnamed: set[str] = set()

    def follow(self, calls: list[Call]) -> Iterator[str]:
        """Follow successful calls, and yield each path that is about to be given by a rename."""
        for call in calls:
            if not call.result.startswith("-"):
                yield from self._apply(call)

    def _apply(self, call: Call) -> Iterator[str]:
        arguments = call.arguments.partition(",")[0] if "write" in call.name else call.arguments
        # A descriptor and a name below it, a name alone, a descriptor alone.
        found = re.findall(r'(?:<([^>]*)>, )?"([^"]*)"|<([^>]*)>', arguments)
        places = [only or os.path.join(at, name) for at, name, only in found]
        places = [place for place in places if f"{place}/".startswith(self._root)]
        if not places:
            return
        place = places[-1]
        match call.name.rstrip("2").removesuffix("at"):
            case "write" | "pwrite64":
                self.unwritten.add(place)
            case "fsync":
                self.unwritten.discard(place)
                self.unnamed = {path for path in self.unnamed if os.path.dirname(path) != place}
            case "syncfs":
                self.unwritten.clear()
                self.unnamed.clear()
            case "open" if "O_CREAT" not in arguments:
                pass
            case "open" | "mkdir" | "link":
                self.unnamed.add(place)
            case "rename":
                yield place
                self.unnamed.discard(places[0])
                self.unnamed.add(place)


def test_a_boot_entry_is_there_with_what_it_names(tmp_path: Path) -> None:
    repo = init(tmp_path / "repo")
    run_generator("make_boot_layout.py", 1, tmp_path / "layout")
    pull(repo, f"oci:{tmp_path / 'layout'}", "os", "--bootable")
    outside = tmp_path / "outside"
    (outside / "boot").mkdir(parents=True)
    places = ("--bootdir", outside / "boot", "--statedir", outside / "state")
    log = tmp_path / "log"
    run(*strace.recorder(log, children=True), CFSCTL, "--repo", repo, "oci", "prepare-boot", "os", *places)
    files = Files(outside)
    named = []
    for place in files.follow(strace.read(log)):
        assert not files.unwritten, f"{place} may be there with half of its content"
        if "/loader/" in place:
            assert not {path for path in files.unnamed if "/loader" not in path}, "the entry may be there alone"
        named.append(os.path.relpath(place, outside / "boot"))
    assert len(named) > 2
    assert named[-1] == "loader/entries/t1.conf"
    assert not files.unnamed
