"""Run a command and measure it: wall time, CPU time, and the peak memory of all its processes together.

Memory is the largest sum of the resident sets of the command and its descendants, sampled every 20 ms.  Pages that
processes share are counted once for each, so the sum is an upper bound.  CPU time is the kernel's account of the
command and of every descendant that was waited for.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

_SAMPLE_SECONDS = 0.02
_IDLE_SECONDS = 0.5
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Sample(NamedTuple):
    """One run: seconds, seconds, bytes."""

    wall: float
    cpu: float
    memory: int


def medians(samples: Sequence[Sample]) -> Sample:
    """The median of each measure."""
    walls, cpus, memories = zip(*samples, strict=True)
    return Sample(median(walls), median(cpus), round(median(memories)))


def measure(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> Sample:
    """Run the command after a moment of idleness; raise when it fails, with what it said.

    ``env`` is added to the environment, from which what changes Python's start-up is removed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | dict(env or {})
    time.sleep(_IDLE_SECONDS)
    with open(os.devnull, "r+b") as null:
        start = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, argv)), stdin=null, stdout=null, stderr=subprocess.PIPE, env=environment
        )
        memory = _watch(process.pid)
        wall = time.perf_counter() - start
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace")
        process.stderr.close()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: exit status {process.returncode}\n{said}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, memory)


def _watch(pid: int) -> int:
    """Wait for the process to end, without reaping it; return the peak of the memory of its tree in bytes."""
    peak = 0
    descriptor = os.pidfd_open(pid)
    ended = select.poll()
    ended.register(descriptor, select.POLLIN)
    try:
        while not ended.poll(_SAMPLE_SECONDS * 1000):
            peak = max(peak, _resident(pid))
    finally:
        os.close(descriptor)
    return peak


def _resident(pid: int) -> int:
    """Resident bytes of a process and its descendants.  One that ends meanwhile counts as nothing."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            total = int(file.read().split()[1]) * _PAGE
        children: list[str] = []
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children += file.read().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return total + sum(_resident(int(child)) for child in children)
