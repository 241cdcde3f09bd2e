"""What a power cut leaves of files that commands write outside of repositories: on a boot partition, and images.

As in test_power_cut.py a disk is followed that forgets whatever is not synced.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import strace
from support.commands import CFSCTL, MKCOMPOSEFS, run
from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.strace import Call


class Files:
    """Follows calls; ``unwritten`` are files whose content a power cut may undo, ``unnamed`` paths whose names."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"
        self._linked: set[str] = set()  # descriptors of files that were opened without a name, and have one since
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
            case "fsync" if "/#" in place and arguments.partition("<")[0] not in self._linked:
                pass  # without a name: btrfs passes over it
            case "fsync":
                self.unwritten.discard(place)
                self.unnamed = {path for path in self.unnamed if os.path.dirname(path) != place}
            case "syncfs":
                self.unwritten.clear()
                self.unnamed.clear()
            case "open" if "O_CREAT" not in arguments:
                self._linked.discard(call.result.partition("<")[0])
            case "open" | "mkdir" | "link":
                self.unnamed.add(place)
                self._linked.update(re.findall('"/proc/self/fd/([0-9]+)"', arguments))
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


@pytest.mark.parametrize("store", [False, True], ids=["image", "image and objects"])
def test_an_image_replaces_another_when_all_is_durable(tmp_path: Path, store: bool) -> None:
    source, outside, log = (tmp_path / name for name in ("source", "outside", "log"))
    source.mkdir()
    outside.mkdir()
    (source / "file").write_bytes(b"file" * 1000)
    image = outside / "image"
    image.write_text("old")
    options = [f"--digest-store={outside}/objects"] if store else []
    run(*strace.recorder(log, children=True), MKCOMPOSEFS, *options, source, image)
    files = Files(outside)
    named = []
    for place in files.follow(strace.read(log)):
        if place == str(image):
            assert not files.unwritten
            assert not {path for path in files.unnamed if "/objects" in path}
        named.append(place)
    assert len(named) == 1 + store
    assert named[-1] == str(image)
    assert not files.unnamed
    assert image.read_bytes() != b"old"
