"""Drafts of the SDK: the core gets the same dump in parts and at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from composefs_ext import Core, Request, drafts
from composefs_ext.drafts import Draft
from composefs_ext.testing import MemoryCore

LINES = [b"/ 0 40755 2 0 0 0 0.0 - - -\n", *(b"/f%d 0 100644 1 0 0 0 0.0 - - -\n" % number for number in range(9))]


@pytest.mark.parametrize("is_offered", [True, False])
@pytest.mark.parametrize("part", [1, 100, 10_000])
def test_a_dump_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, is_offered: bool) -> None:
    monkeypatch.setattr(drafts, "_PART", part)
    left: list[str] = []

    def handler(_request: Request, core: Core) -> dict[str, Any]:
        ids = []
        for _ in range(2):
            draft = Draft(core)
            for line in LINES:
                draft.write(line)
            ids.append(core.image_put(*draft.finish()).result()["id"])
        left.extend(name for name in os.listdir(core.staging.path) if name.startswith("part"))
        whole = core.image_put(core.staging.write(b"".join(LINES))).result()["id"]
        return {"ids": [*ids, whole]}

    core = MemoryCore(tmp_path)
    if not is_offered:
        core.offers.remove("drafts")
    first, second, whole = core.run(handler, ["drafts"])["ids"]
    assert first == second == whole
    made = [method for method, _ in core.calls].count("image.draft")
    assert made == (2 * {1: 10, 100: 2, 10_000: 0}[part] if is_offered else 0)
    assert left == []
