"""Jobs and how they are run: several programs in turn, the first one ours.

A section of the benchmark is a function from a :class:`Bench` to rows; ``run.py`` lists them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from measure import Sample
from workload import Workload, workload

BIN = Path(sys.executable).parent
CFSCTL = BIN / "cfsctl"

Job = tuple[str, Callable[[], Sample]]


class Bench(NamedTuple):
    """What a section is run with: an empty directory to work in, the one for what is made once, and how much to do."""

    work: Path
    keep: Path
    scale: float
    rounds: int

    def workload(self, part: float = 1.0) -> Workload:
        """Return the runtime that is pulled, or one with so much less in it."""
        return workload(self.keep, self.scale * part)


class Row(NamedTuple):
    """A job as several programs did it; the first one is ours.  ``items`` is what the time is to be divided by."""

    job: str
    samples: dict[str, list[Sample]]
    items: int = 0


def alternate(name: str, jobs: Sequence[Job], rounds: int, items: int = 0) -> Row:
    """Run the programs in turn, so that a slow moment of the machine hits all alike."""
    samples: dict[str, list[Sample]] = {program: [] for program, _ in jobs}
    for _ in range(rounds):
        for program, run in jobs:
            samples[program].append(run())
    return Row(name, samples, items)


def quietly(argv: Sequence[str | Path], stdin: IO[bytes] | None = None) -> None:
    subprocess.run(list(map(str, argv)), check=True, stdin=stdin, stdout=subprocess.DEVNULL)
