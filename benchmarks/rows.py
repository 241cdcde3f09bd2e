"""Jobs and how they are run: several programs in turn, the first one ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from measure import Sample

BIN = Path(sys.executable).parent
CFSCTL = BIN / "cfsctl"

Job = tuple[str, Callable[[], Sample]]


class Row(NamedTuple):
    """A job as several programs did it; the first one is ours."""

    job: str
    samples: dict[str, list[Sample]]


def alternate(name: str, jobs: Sequence[Job], rounds: int) -> Row:
    """Run the programs in turn, so that a slow moment of the machine hits all alike."""
    samples: dict[str, list[Sample]] = {program: [] for program, _ in jobs}
    for _ in range(rounds):
        for program, run in jobs:
            samples[program].append(run())
    return Row(name, samples)


def quietly(argv: Sequence[str | Path], stdin: IO[bytes] | None = None) -> None:
    subprocess.run(list(map(str, argv)), check=True, stdin=stdin, stdout=subprocess.DEVNULL)
