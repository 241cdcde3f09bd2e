"""cfsctl, which tells an extension when its process was made."""

from __future__ import annotations

import os
import time

from composefs.cli.start import main
from composefs.ext import process

if __name__ == "__main__":
    spawn = process.spawn

    def spawn_and_tell(program: process.Program) -> process.Process:
        environment = {**program.environment, "BENCH_SPAWNED": str(time.monotonic_ns())}
        return spawn(program._replace(environment=environment))

    process.spawn = spawn_and_tell
    os.environ.pop("PYTHONPATH", None)
    main()
