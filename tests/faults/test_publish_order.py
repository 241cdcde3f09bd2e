"""The order of system calls that makes a power cut harmless, as strace sees it.

Objects, then one syncfs, then names in streams/ and images/ and their directories synced, then refs and theirs.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.repository import Repository
from support import peers

DRIVER = """
import sys
from composefs.repository import *

with Repository.open(sys.argv[1], writable=True) as repository, Staging.create(repository) as staging:
    (staging.work / "file").write_bytes(b"content of an object")
    adopted = repository.objects.adopt(staging.work_fd, "file", staging.private)
    image = repository.images.put([b"image"])
    stream = repository.streams.put(1, b"abc", [-3, 0], [adopted.id])
    repository.publish(Publication(
        streams=[StreamName("a-1", stream.id)],
        images=[ImageName(image.id, "team/one")],
        refs=[RefUpdate("a/x", "a-1", "flat")],
    ))
"""

CALLS = "linkat,renameat,renameat2,symlinkat,syncfs,fsync,fdatasync,unlinkat,mkdirat"


@pytest.fixture
def trace(tmp_path: Path) -> list[str]:
    """The calls of the driver that change or sync names, each as "call path": paths relative to the repository."""
    peers.require("strace")
    path = tmp_path / "repo"
    Repository.init(path, algorithm=SHA256, insecure=True)
    log = tmp_path / "log"
    command = ["strace", "-qq", "-y", "-s", "4096", "-e", f"trace={CALLS}", "-o", str(log)]
    subprocess.run([*command, sys.executable, "-c", DRIVER, str(path)], check=True, timeout=120)
    calls = []
    for line in log.read_text().splitlines():
        match = re.fullmatch(r"(?P<call>\w+)\((?P<arguments>.*)\) += 0", line)
        if match is None or str(path) not in line:
            continue
        # Of two paths the last one is where the name appears.
        places = re.findall(rf'\d+<{re.escape(str(path))}(?P<at>[^>]*)>(?:, "(?P<name>[^"]*)")?', match["arguments"])
        at, name = places[-1]
        calls.append(f"{match['call'].removesuffix('2')} {at.lstrip('/')}{'/' if at and name else ''}{name}")
    return calls


def position(trace: list[str], pattern: str) -> int:
    """Where the one call that matches is."""
    found = [number for number, call in enumerate(trace) if re.fullmatch(pattern, call)]
    assert len(found) == 1, (pattern, trace)
    return found[0]


def test_names_appear_after_what_they_name_is_durable(trace: list[str]) -> None:
    objects = [number for number, call in enumerate(trace) if re.match(r"linkat objects/", call)]
    assert len(objects) == 3, trace
    barrier = position(trace, r"syncfs ")
    stream = position(trace, r"renameat streams/a-1")
    image = position(trace, r"renameat images/[0-9a-f]{64}")
    streams_synced = max(number for number, call in enumerate(trace) if call == "fsync streams")
    images_synced = max(number for number, call in enumerate(trace) if call == "fsync images")
    stream_ref = position(trace, r"renameat streams/refs/a/x")
    image_ref = position(trace, r"renameat images/refs/team/one")
    stream_refs_synced = position(trace, r"fsync streams/refs/a")
    image_refs_synced = position(trace, r"fsync images/refs/team")

    assert max(objects) < barrier < min(stream, image)
    assert stream < streams_synced < min(stream_ref, image_ref)
    assert image < images_synced < min(stream_ref, image_ref)
    assert stream_ref < stream_refs_synced
    assert image_ref < image_refs_synced


def test_every_name_is_a_symlink_made_aside_and_renamed(trace: list[str]) -> None:
    made = [call for call in trace if call.startswith("symlinkat ")]
    assert len(made) == 4
    assert all("/.symlink-" in call for call in made), made


def test_a_directory_is_durable_before_something_is_put_into_it(trace: list[str]) -> None:
    for above, directory in (
        ("streams", "streams/refs"),
        ("streams/refs", "streams/refs/a"),
        ("images", "images/refs"),
    ):
        made = position(trace, f"mkdirat {directory}")
        assert trace[made + 1] == f"fsync {above}", trace


def test_nothing_is_synced_one_by_one(trace: list[str]) -> None:
    assert not [call for call in trace if "sync objects" in call or call.startswith("fdatasync")]
