"""An extension that measures its conversation with the core; what it finds is its result, in seconds."""

from __future__ import annotations

import os
import time
from collections import deque

import composefs_ext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.connection import Pending


def run(request: Request, core: Core) -> dict[str, Any]:
    now = time.monotonic_ns()
    match request.command:
        case ("start",):
            return {"seconds": (now - int(os.environ["BENCH_SPAWNED"])) / 1e9}
        case ("put",):
            return {"seconds": _put(core, **request.arguments)}
        case _:
            return {"seconds": _calls(core, request.arguments["calls"], request.arguments["ahead"])}


def _put(core: Core, files: int, size: int, lot: int, packed: bool) -> float:
    from composefs_ext.packs import Packs  # a start is measured too, and needs none

    rows: list[Any] = []
    packs = Packs(core.staging, core.features)
    for number in range(files):
        data = number.to_bytes(8, "little") * (size // 8 + 1)
        if packed:
            name, offset = packs.add(data)
            rows.append({"name": name, "size": len(data), "offset": offset})
            if len(rows) % lot == 0:
                packs.flush()
        else:
            rows.append({"name": core.staging.write(data), "size": len(data)})
    packs.flush()
    time.sleep(0.1)
    start = time.perf_counter()
    answers = [core.object_put(rows[first : first + lot]) for first in range(0, files, lot)]
    stored = [row for answer in answers for row in answer.result()]
    seconds = time.perf_counter() - start
    assert len({row["id"] for row in stored}) == files
    return seconds


def _calls(core: Core, calls: int, ahead: int) -> float:
    under_way: deque[Pending[list[bool]]] = deque()
    absent = ["0" * 128]
    start = time.perf_counter()
    for _ in range(calls):
        if len(under_way) == ahead:
            under_way.popleft().result()
        under_way.append(core.object_has(absent))
    while under_way:
        under_way.popleft().result()
    return time.perf_counter() - start


if __name__ == "__main__":
    composefs_ext.main(run)
