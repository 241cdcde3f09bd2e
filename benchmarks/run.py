#!/usr/bin/env python3
"""Measure the main jobs side by side with other programs that do them, alternating, and print medians and ratios.

    make bench                     everything, at full size (16,288 files, 1.1 GB)
    make bench SCALE=0.1 ARGS="--rounds 3 --json"

The composefs repository (sha512, without fs-verity) and ostree's (bare-user) are on tmpfs where there is room for them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core import core_jobs
from measure import Sample, measure, medians
from rows import CFSCTL, Row, alternate, quietly
from webserver import nginx
from workload import BRANCH, Workload, workload

ROOM = 4.5e9
"""Bytes that the repositories take at scale 1, with some to spare."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="size of the runtime (1: 16,288 files)")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each program for each job")
    parser.add_argument("--json", action="store_true", help="print every sample instead of a table")
    parser.add_argument("--keep", type=Path, default=Path(".bench"), help="where the generated repository is kept")
    parser.add_argument("--directory", type=Path, help="where the programs work (default: tmpfs, else TMPDIR)")
    options = parser.parse_args()
    told = sys.stderr if options.json else sys.stdout

    print(f"making the runtime at scale {options.scale:g}, unless it is in {options.keep}/ …", file=told, flush=True)
    made = workload(options.keep, options.scale)
    rows: list[Row] = []
    parent = options.directory or _working_place(ROOM * options.scale)
    with tempfile.TemporaryDirectory(prefix="composefs-bench-", dir=parent) as name:
        work = Path(name)
        print(f"{made.files} files, {made.bytes / 1e6:.0f} MB; working in {work}", file=told, flush=True)
        with nginx(made.repo, work / "nginx") as url:
            for job in _pulls(work, url, made):
                rows.append(job(options.rounds))
                print(f"  {rows[-1].job} …", file=told, flush=True)
        rows.append(alternate("cfsctl --help", [("cfsctl", lambda: measure([CFSCTL, "--help"]))], 3 * options.rounds))
        for row in core_jobs(work, made, options.rounds):
            rows.append(row)
            print(f"  {row.job} …", file=told, flush=True)
    if options.json:
        print(json.dumps({"machine": _machine(), "scale": options.scale, "rows": [row._asdict() for row in rows]}))
    else:
        print(_machine())
        _print_table(rows)


# The jobs


def _pulls(work: Path, url: str, made: Workload) -> Iterator[Callable[[int], Row]]:
    """Yield the three pulls, each to be run to its end before the next."""
    ours, theirs = _Composefs(work / "composefs", url), _Ostree(work / "ostree", url)

    def first(rounds: int) -> Row:
        made.publish(made.first)
        return alternate("first pull", [(side.name, side.first_pull) for side in (ours, theirs)], rounds)

    def nothing_new(rounds: int) -> Row:
        return alternate("nothing new", [(side.name, side.pull) for side in (ours, theirs)], 3 * rounds)

    def changed(rounds: int) -> Row:
        ours.save()
        theirs.save()
        made.publish(made.second)
        return alternate("3 % changed", [(side.name, side.pull_from_saved) for side in (ours, theirs)], rounds)

    yield from (first, nothing_new, changed)


class _Composefs:
    """Our side of a pull: a repository, and the cache that belongs to it."""

    name = "cfsctl"

    def __init__(self, home: Path, url: str) -> None:
        self.home, self.saved, self.url = home, home.with_suffix(".saved"), url
        self.env = {"XDG_CACHE_HOME": str(home / "cache")}

    def first_pull(self) -> Sample:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        quietly([CFSCTL, "init", "--insecure", self.home / "repo"])
        return self.pull()

    def pull(self) -> Sample:
        return measure([CFSCTL, "--repo", self.home / "repo", "ostree", "pull", self.url, BRANCH], env=self.env)

    def save(self) -> None:
        self.home.rename(self.saved)

    def pull_from_saved(self) -> Sample:
        _restore(self.saved, self.home)
        return self.pull()


class _Ostree(_Composefs):
    """ostree's side: a bare-user repository."""

    name = "ostree"

    def first_pull(self) -> Sample:
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        quietly(["ostree", "init", f"--repo={self.home}/repo", "--mode=bare-user"])
        quietly(["ostree", "remote", "add", f"--repo={self.home}/repo", "--no-gpg-verify", "bench", self.url])
        return self.pull()

    def pull(self) -> Sample:
        return measure(["ostree", "pull", f"--repo={self.home}/repo", "bench", BRANCH], env=self.env)


def _restore(saved: Path, home: Path) -> None:
    """Bring back a repository as it was.  Hard links do: both programs replace files and never write into them."""
    shutil.rmtree(home, ignore_errors=True)
    quietly(["cp", "-al", saved, home])


# Where, and on what


def _working_place(room: float) -> Path | None:
    """Return tmpfs if it has room and user xattrs, which ostree's bare-user mode needs; else None for TMPDIR."""
    place = Path("/dev/shm")
    if not place.is_dir() or shutil.disk_usage(place).free < room:
        return None
    with tempfile.NamedTemporaryFile(dir=place) as probe:
        try:
            os.setxattr(probe.name, "user.probe", b"1")
        except OSError:
            return None
    return place


def _machine() -> str:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores, {cpu.partition(': ')[2]}, Linux {platform.release()}, Python {platform.python_version()}"


def _print_table(rows: Sequence[Row]) -> None:
    print(f"\n{'job':24} {'program':14} {'wall s':>16} {'CPU s':>8} {'MiB':>6} {'cfsctl ÷ it':>11}")
    print(f"{'':24} {'':14} {'median (min)':>16}")
    for row in rows:
        ours: Sample | None = None
        for program, samples in row.samples.items():
            middle = medians(samples)
            wall = f"{middle.wall:.3f} ({min(sample.wall for sample in samples):.3f})"
            ratio = f"{ours.wall / middle.wall:.2f}" if ours else ""
            print(f"{row.job:24} {program:14} {wall:>16} {middle.cpu:8.2f} {middle.memory / 2**20:6.0f} {ratio:>11}")
            ours = ours or middle


if __name__ == "__main__":
    main()
