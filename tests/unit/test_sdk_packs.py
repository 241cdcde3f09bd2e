"""Packs: small contents share a staged file, which is removed when the core has all of them; old cores get files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from composefs_ext import Core, Request
from composefs_ext.fsverity import fsverity_digest
from composefs_ext.packs import Packs
from composefs_ext.puts import Puts
from composefs_ext.staging import Staging
from composefs_ext.testing import MemoryCore

SMALL = [b"%d" % number * 700 for number in range(300)]
LARGE = b"large" * 10_000


def store(core: Core, packs: Packs, contents: list[bytes]) -> list[str]:
    puts, ids = Puts(core), []
    for number, content in enumerate(contents):
        if len(content) <= packs.largest:
            name, offset = packs.add(content)
            puts.add(number, name, len(content), offset)
        else:
            puts.add(number, core.staging.write(content), len(content))
    packs.flush()
    assert puts.bytes == sum(map(len, contents))
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
