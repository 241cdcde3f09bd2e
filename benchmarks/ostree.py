"""Other ways of pulling the runtime: from a directory, by static deltas, and over a line that is slow or fails.

The deltas are those that ``ostree static-delta generate`` makes unless told otherwise: xz, parts of 32 MiB, and files
above 4 MB beside them.  The slow line has a tenth of the files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rows import Bench, Job, Row, alternate, quietly
from sides import Composefs, Ostree
from slowline import slow_line
from webserver import nginx
from workload import BRANCH, Workload, with_deltas

ROUND_TRIP = 0.05
FAILING = 1.0
"""Seconds, and requests of a hundred."""


def ostree_jobs(bench: Bench) -> Iterator[Row]:
    rounds = max(bench.rounds // 2, 1)
    yield from _local(bench.work, bench.workload(), rounds)
    yield from _deltas(bench.work, with_deltas(bench.workload()), rounds)
    yield from _far(bench.work, bench.workload(0.1), rounds)


def _local(work: Path, made: Workload, rounds: int) -> Iterator[Row]:
    """Pull from an archive and from a bare-user repository on this machine.

    ostree checks no content there, and of a bare-user repository only makes hard links, unless it is told not to trust
    it, as we never do.
    """
    made.publish(made.first)
    yield alternate("pull-local, archive", _first(_local_sides(work, made.repo)), rounds)
    bare = work / "bare-user"
    quietly(["ostree", "init", f"--repo={bare}", "--mode=bare-user"])
    quietly(["ostree", "pull-local", f"--repo={bare}", made.repo, BRANCH])
    yield alternate("pull-local, bare-user", _first(_local_sides(work, bare)), rounds)
    shutil.rmtree(bare)


def _local_sides(work: Path, source: Path) -> tuple[Composefs, ...]:
    ours = Composefs(work / "composefs", "pull-local", source, BRANCH)
    theirs = Ostree(work / "ostree", "pull-local", "--untrusted", source, BRANCH)
    trusting = Ostree(work / "ostree", "pull-local", source, BRANCH)
    trusting.name = "ostree, trusting"
    return ours, theirs, trusting


def _deltas(work: Path, made: Workload, rounds: int) -> Iterator[Row]:
    with nginx(made.repo, work / "nginx") as url:
        ours = Composefs(work / "composefs", "pull", url, BRANCH)
        theirs = Ostree(work / "ostree", "pull", "--require-static-deltas", "bench", BRANCH, url=url)
        made.publish(made.first)
        yield alternate("scratch delta", _first((ours, theirs)), rounds)
        for side in (ours, theirs):
            side.save()
        made.publish(made.second)
        jobs = [(side.name, side.pull_from_saved) for side in (ours, theirs)]
        yield alternate("delta, 3 % changed", jobs, 2 * rounds)


def _far(work: Path, made: Workload, rounds: int) -> Iterator[Row]:
    made.publish(made.first)
    where = f"{ROUND_TRIP * 1000:.0f} ms"
    with nginx(made.repo, work / "nginx") as near, slow_line(_port(near), ROUND_TRIP) as port:
        url = f"http://127.0.0.1:{port}"
        ours = Composefs(work / "composefs", "pull", url, BRANCH)
        theirs = Ostree(work / "ostree", "pull", "bench", BRANCH, url=url)
        yield alternate(f"first pull, {where}", _first((ours, theirs)), rounds)
        yield alternate(f"nothing new, {where}", [(side.name, side.pull) for side in (ours, theirs)], rounds)
        with (
            nginx(made.repo, work / "failing", FAILING) as failing,
            slow_line(_port(failing), ROUND_TRIP) as failing_port,
        ):
            failing_url = f"http://127.0.0.1:{failing_port}"
            failed = Composefs(work / "failed", "pull", failing_url, BRANCH)
            ours.name = "without failures"
            theirs = Ostree(work / "ostree", "pull", "bench", BRANCH, url=failing_url)
            yield alternate(f"{where}, {FAILING:g} % fail", _first((failed, ours, theirs)), rounds)


def _first(sides: Sequence[Composefs]) -> list[Job]:
    return [(side.name, side.first_pull) for side in sides]


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])
