"""Make every call that changes a repository fail, in turn and in every way, and print what came of it.

    tests/faults/sweep.py [--jobs N] [--only OPERATION]... [--report docs/reliability.md]

What is injected is in tests/support/faulted.py, what is judged in judged.py; `make faults` runs this.  The exit
status is 1 when anything was lost.  With --report, the table replaces the one between the markers of that page; with
--only, its rows of these operations.

The last operations, "gc, fs-verity" and the like, are done with real fs-verity, in the virtual machine of tests/vm,
unless COMPOSEFS_NO_VM is set; `--only machine` is all of them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime as dt
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.faulted import OPERATIONS, Operation, Target, Verdict, Workshop, attempt, record
from support.judged import Clean
from support.strace import Fault
from vm import machine
from vm.checks.faults import EVERY

_BEGIN, _END = "<!-- faults: begin -->", "<!-- faults: end -->"

HEAD = (
    "| operation | fault | injected | stopped it | harmless | survived | lost | run on |",
    "|---|---|--:|--:|--:|--:|--:|---|",
)

_MACHINE_SECONDS = 7200
_IN_MACHINE = {
    "check_faults_while_an_image_is_created": "create-image, fs-verity",
    "check_faults_while_verity_is_enabled": "verity enable, fs-verity",
    "check_faults_while_an_image_is_copied": "copy, fs-verity",
    "check_faults_while_garbage_is_collected": "gc, fs-verity",
}
MACHINE = "machine"
"""What --only calls all of them."""


_ATTEMPTS = 4
_TOLD_EVERY = 50

Case = tuple[Workshop, Operation, Clean, Target, Fault]


def _attempt(case: Case) -> Verdict:
    """Judge a case; again if a command took so long that the machine must have stood still."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(subprocess.TimeoutExpired):
            return attempt(*case)
    return attempt(*case)


def count(results: Iterable[tuple[Case, Verdict]]) -> list[str]:
    """Count by operation and fault: rows of a table in Markdown."""
    counts: dict[tuple[str, Fault], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (_, operation, _, _, fault), verdict in results:
        row = counts[operation.name, fault]
        row["missed" if not verdict.hit else "injected"] += 1
        row["failed"] += verdict.failed
        row["lost"] += bool(verdict.wrong)
    return [_row(name, fault.name, row) for (name, fault), row in counts.items()]


def in_the_machine(checks: Iterable[str]) -> tuple[list[str], bool]:
    """Try all faults of these checks in the virtual machine; return rows, and whether nothing was lost."""
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        content = Path(directory, "content")
        content.mkdir()
        outcome = machine.run(Path(directory), content, EVERY, *checks, time_limit=_MACHINE_SECONDS)
    rows = []
    for name, result in outcome.results.items():
        print(result["error"] or f"{name}: {result['seconds']} s", flush=True)
        for fault, each in (result["found"] or {}).items():
            counted = collections.Counter(injected=each["injected"], failed=each["stopped"])
            rows.append(_row(_IN_MACHINE[name], fault, counted))
    if not outcome.finished:
        print(outcome.console[-3000:])
    return rows, outcome.finished and not any(result["error"] for result in outcome.results.values())


def _row(name: str, fault: str, counted: collections.Counter[str]) -> str:
    injected, failed, lost = counted["injected"], counted["failed"], counted["lost"]
    numbers = (injected, failed, injected - failed, injected - lost, lost)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return f"| {name} | {fault} | {' | '.join(map(str, numbers))} | {today} |"


def with_total(rows: list[str]) -> list[str]:
    """Return the table of rows, with one more that adds them up."""
    columns = zip(*([int(cell) for cell in row.split("|")[3:-2]] for row in rows), strict=True)
    return [*HEAD, *rows, f"| all |  | {' | '.join(str(sum(column)) for column in columns)} | |"]


def report(page: Path, rows: list[str]) -> None:
    """Put the rows into the page's table, in the place of those of the same operations, or behind all."""
    before, rest = page.read_text().split(_BEGIN)
    old, after = rest.split(_END)
    kept = [row for row in old.splitlines() if row.startswith("| ") and row not in HEAD and _operation(row) != "all"]
    rows = list(itertools.chain(*(_by_operation(kept) | _by_operation(rows)).values()))
    page.write_text("\n".join([before + _BEGIN, "", *with_total(rows), "", _END + after]))


def _by_operation(rows: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(_operation(row), []).append(row)
    return found


def _operation(row: str) -> str:
    return row.split("|")[1].strip()


def main() -> int:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    names = [*(operation.name for operation in OPERATIONS), *_IN_MACHINE.values(), MACHINE]
    parser.add_argument("--only", action="append", choices=names)
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as directory,
        ProcessPoolExecutor(arguments.jobs) as pool,
        Workshop(Path(directory)).make().serving() as workshop,
    ):
        cases: list[Case] = []
        for operation in OPERATIONS:
            if arguments.only is None or operation.name in arguments.only:
                clean, targets = record(workshop, operation)
                cases += [(workshop, operation, clean, target, fault) for fault in Fault for target in targets]
        print(f"{len(cases)} runs", flush=True)
        results = []
        for case, verdict in zip(cases, pool.map(_attempt, cases), strict=True):
            results.append((case, verdict))
            if len(results) % _TOLD_EVERY == 0:
                print(f"{len(results)} of {len(cases)}", file=sys.stderr, flush=True)
            _, operation, _, target, fault = case
            what = f"{operation.name}: {fault.name} at {target.where} {target.call.name} #{target.call.nth}"
            if not verdict.hit:
                print(f"{what}: nothing was hit of {target.call.arguments[:200]}", flush=True)
            for wrong in verdict.wrong:
                print(f"{what}, {verdict.hit}: {wrong}", flush=True)
    rows = count(results)
    good = not any(verdict.wrong for _, verdict in results)
    only = arguments.only or ([] if os.environ.get("COMPOSEFS_NO_VM") else [MACHINE])
    checks = [check for check, row in _IN_MACHINE.items() if MACHINE in only or row in only]
    if checks:
        more, well = in_the_machine(checks)
        rows += more
        good = good and well
    print("\n".join(with_total(rows)))
    if arguments.report:
        report(arguments.report, rows)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
