"""What the protocol costs: storing through it and without it, calls one by one and ahead of their answers, and a start.

The times are taken inside: by an extension of Python's SDK (``extension/bench.py``) around its calls, and for the start
from just before the core forks until the extension has ``run``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from measure import Sample
from rows import CFSCTL, Bench, Job, Row, alternate, quietly

FILES = 10_000
SIZE = 2_500
LOT = 128
CALLS = 5_000
AHEAD = 32
HERE = Path(__file__).parent / "extension"


def extension_jobs(bench: Bench) -> Iterator[Row]:
    repo = bench.work / "repo"

    def new() -> None:
        shutil.rmtree(repo, ignore_errors=True)
        quietly([CFSCTL, "init", "--insecure", repo])

    def put(*options: str) -> Sample:
        new()
        return _told(repo, "put", f"--files={FILES}", f"--size={SIZE}", f"--lot={LOT}", *options)

    def in_process() -> Sample:
        new()
        return _seconds([sys.executable, HERE / "in_process.py", repo, str(FILES), str(SIZE)])

    def calls(ahead: int) -> Sample:
        return _told(repo, "calls", f"--calls={CALLS}", f"--ahead={ahead}")

    puts: list[Job] = [("extension", put), ("in packs", lambda: put("--packed")), ("in process", in_process)]
    yield alternate("object.put", puts, bench.rounds, FILES)
    ways = [("one by one", lambda: calls(1)), (f"{AHEAD} ahead", lambda: calls(AHEAD))]
    yield alternate("object.has", ways, bench.rounds, CALLS)
    yield alternate("from fork to run", [("extension", lambda: _told(repo, "start"))], 3 * bench.rounds)


def _told(repo: Path, *command: str) -> Sample:
    """Run a command of the benchmark's extension and return the time that it tells."""
    return _seconds([sys.executable, HERE / "spawned.py", "--repo", repo, "bench", *command, "--json"])


def _seconds(argv: Sequence[str | Path]) -> Sample:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"COMPOSEFS_EXT_PATH": str(HERE), "BENCH_PYTHON": sys.executable}
    time.sleep(0.2)
    done = subprocess.run(list(map(str, argv)), check=True, stdout=subprocess.PIPE, env=environment)
    told = json.loads(done.stdout)
    return Sample(told if isinstance(told, float) else told["seconds"], 0.0, 0)
