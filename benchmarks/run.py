#!/usr/bin/env python3
"""Measure jobs side by side with other programs that do them, alternating, and print medians and ratios.

    make bench                                     everything, at full size (16,305 files, 1.1 GB)
    make bench SCALE=0.1 ARGS="--rounds 3 --only ostree --json"

The composefs repository (sha512, without fs-verity) and ostree's (bare-user) are on tmpfs where there is room for them.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from core import core_jobs
from ext import extension_jobs
from measure import Sample, medians
from oci import oci_jobs
from ostree import ostree_jobs
from pulls import main_jobs
from rows import Bench, Row

SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "pulls": main_jobs,
    "core": core_jobs,
    "ostree": ostree_jobs,
    "oci": oci_jobs,
    "ext": extension_jobs,
}

PACKAGES = ("composefs", "composefs_ext", "composefs_ostree", "composefs_oci")

ROOM = 4.5e9
"""Bytes that the repositories take at scale 1, with some to spare."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="size of the runtime (1: 16,305 files)")
    parser.add_argument("--rounds", type=int, default=6, help="runs of each program for each job")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this section; may be given again")
    parser.add_argument("--json", action="store_true", help="print every sample instead of a table")
    parser.add_argument("--keep", type=Path, default=Path(".bench"), help="where what is made once is kept")
    parser.add_argument("--directory", type=Path, help="where the programs work (default: tmpfs, else TMPDIR)")
    options = parser.parse_args()
    told = sys.stderr if options.json else sys.stdout

    _compile()
    rows: list[Row] = []
    parent = options.directory or _working_place(ROOM * options.scale)
    with tempfile.TemporaryDirectory(prefix="composefs-bench-", dir=parent) as name:
        print(f"working in {name}", file=told, flush=True)
        for section in options.only or SECTIONS:
            work = Path(name) / section
            work.mkdir()
            for row in SECTIONS[section](Bench(work, options.keep, options.scale, options.rounds)):
                rows.append(row)
                print(f"  {row.job} …", file=told, flush=True)
            shutil.rmtree(work)
    if options.json:
        print(json.dumps({"machine": _machine(), "scale": options.scale, "rows": [row._asdict() for row in rows]}))
    else:
        print(_machine())
        _print_table(rows)


def _compile() -> None:
    """Write the bytecode that an installation has: extensions are confined, and cannot keep what they compile."""
    for package in PACKAGES:
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            compileall.compile_dir(place, quiet=1)


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
    print(f"\n{'job':28} {'program':16} {'wall s':>16} {'CPU s':>8} {'MiB':>6} {'first ÷ it':>10} {'µs an item':>11}")
    print(f"{'':28} {'':16} {'median (min)':>16}")
    for row in rows:
        first: Sample | None = None
        for program, samples in row.samples.items():
            middle = medians(samples)
            wall = f"{middle.wall:.3f} ({min(sample.wall for sample in samples):.3f})"
            ratio = f"{first.wall / middle.wall:.2f}" if first else ""
            each = f"{middle.wall / row.items * 1e6:.1f}" if row.items else ""
            used = f"{middle.cpu:8.2f} {middle.memory / 2**20:6.0f}" if middle.memory else f"{'':15}"
            print(f"{row.job:28} {program:16} {wall:>16} {used} {ratio:>10} {each:>11}")
            first = first or middle


if __name__ == "__main__":
    main()
