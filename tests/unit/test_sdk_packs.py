"""Packs: small contents share a staged file, which is removed when the core has all of them; old cores get files."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

from composefs_ext import Core, Request
from composefs_ext.fsverity import fsverity_digest
from composefs_ext.packs import Packs
from composefs_ext.puts import LEAST, Puts
from composefs_ext.staging import Staging
from composefs_ext.testing import MemoryCore

SMALL = [b"%d" % number * 700 for number in range(300)]
LARGE = b"large" * 10_000


def store(core: Core, packs: Packs, contents: list[bytes]) -> list[str]:
    puts, ids = Puts(core), []
    weight = 0
    for number, content in enumerate(contents):
        if len(content) <= packs.largest:
            name, offset = packs.add(content)
            puts.add(number, name, len(content), offset)
            weight += len(content)
        else:
            puts.add(number, core.staging.write(content), len(content))
            weight += max(len(content), LEAST)
    packs.flush()
    assert puts.bytes == weight
    for number, (row, stored) in enumerate(puts.rest()):
        assert (row, stored["size"]) == (number, len(contents[number]))
        ids.append(stored["id"])
    assert (puts.bytes, bool(puts)) == (0, False)
    return ids


@pytest.mark.parametrize("offers", [["packs"], ["result_file"]])
def test_every_content_is_stored_and_no_pack_is_left(tmp_path: Path, offers: list[str]) -> None:
    core = MemoryCore(tmp_path)
    core.offers = offers
    contents = [b"", LARGE, *SMALL[:100], LARGE, *SMALL[100:], b"", SMALL[0]]
    names: set[str] = set()

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        packs = Packs(core.staging, core.features)
        ids = store(core, packs, contents) + store(core, packs, SMALL[:2])
        assert ids == [fsverity_digest(each, "sha512") for each in [*contents, *SMALL[:2]]]
        names.update(os.listdir(core.staging.path))
        return {}

    core.run(handler, ["store"])
    rows = [row for method, params in core.calls if method == "object.put" for row in params["files"]]
    assert names == set()
    assert {len(content) for content in core.objects.values()} == {len(content) for content in contents}
    packed = {row["name"] for row in rows if "offset" in row}
    assert len(packed) == (2 if offers == ["packs"] else 0)  # one each time: 0.6 MB are less than a pack
    assert {row["size"] for row in rows if "offset" not in row} >= {len(LARGE)}


def test_packs_are_bounded_and_written_once(tmp_path: Path) -> None:
    packs = Packs(Staging(str(tmp_path)), ["packs"])
    packs.flush()
    assert os.listdir(tmp_path) == []
    buffer = bytearray(packs.largest)
    places = []
    for number in range(100):
        buffer[:8] = number.to_bytes(8, "little")
        places.append(packs.add(memoryview(buffer)))
    assert len(os.listdir(tmp_path)) == 100 * len(buffer) // (1 << 20)
    packs.flush()
    packs.flush()
    for number, (name, offset) in enumerate(places):
        pack = (tmp_path / name).read_bytes()
        assert len(pack) <= 1 << 20
        assert pack[offset : offset + len(buffer)][:8] == number.to_bytes(8, "little")
    assert {path.name for path in tmp_path.iterdir()} == {name for name, _ in places}


def test_a_pack_that_found_no_room_is_written_anew(tmp_path: Path) -> None:
    """Whoever asks a second time hears of the full disk again, and not that the file exists."""
    packs = Packs(Staging(str(tmp_path)), ["packs"])
    name, offset = packs.add(b"content" * 2000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="File too large"):
                packs.flush()
            assert os.listdir(tmp_path) == []
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    packs.flush()
    assert (tmp_path / name).read_bytes()[offset:] == b"content" * 2000
