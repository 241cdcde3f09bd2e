"""Make every call that changes a repository fail, in turn and in every way, and print what came of it.

    tests/faults/sweep.py [--jobs N] [--only OPERATION] [--report docs/reliability.md]

What is injected and judged is in tests/support/faulted.py; `make faults` runs this.  The exit status is 1 when anything
was lost.  With --report, the table replaces the one between the markers of that page.
"""

from __future__ import annotations

import argparse
import collections
import datetime as dt
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.faulted import OPERATIONS, Clean, Operation, Target, Verdict, Workshop, attempt, record
from support.strace import Fault

_BEGIN, _END = "<!-- faults: begin -->", "<!-- faults: end -->"

Case = tuple[Workshop, Operation, Clean, Target, Fault]


def _attempt(case: Case) -> Verdict:
    return attempt(*case)


def table(results: Iterable[tuple[Case, Verdict]]) -> list[str]:
    """Count by operation and fault, as a table in Markdown."""
    counts: dict[tuple[str, Fault], collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for (_, operation, _, _, fault), verdict in results:
        count = counts[operation.name, fault]
        count["missed" if not verdict.hit else "injected"] += 1
        count["failed"] += verdict.failed
        count["lost"] += bool(verdict.wrong)
    rows = [
        "| operation | fault | injected | stopped it | harmless | survived | lost |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    total: collections.Counter[str] = collections.Counter()
    for (name, fault), count in counts.items():
        rows.append(_row(name, fault.name, count))
        total += count
    return [*rows, _row("all", "", total)]


def _row(name: str, fault: str, count: collections.Counter[str]) -> str:
    injected, failed, lost = count["injected"], count["failed"], count["lost"]
    return f"| {name} | {fault} | {injected} | {failed} | {injected - failed} | {injected - lost} | {lost} |"


def report(page: Path, rows: list[str]) -> None:
    """Put the table into the page."""
    before, rest = page.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    date = dt.datetime.now(dt.UTC).date().isoformat()
    page.write_text("\n".join([before + _BEGIN, f"Run on {date}:", "", *rows, _END + after]))


def main() -> int:
    """Run the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=[operation.name for operation in OPERATIONS])
    parser.add_argument("--report", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as directory, ProcessPoolExecutor(arguments.jobs) as pool:
        workshop = Workshop(Path(directory)).make()
        cases: list[Case] = []
        for operation in OPERATIONS:
            if arguments.only in (None, operation.name):
                clean = record(workshop, operation)
                cases += [(workshop, operation, clean, target, fault) for fault in Fault for target in clean.targets]
        print(f"{len(cases)} runs", flush=True)
        results = []
        for case, verdict in zip(cases, pool.map(_attempt, cases), strict=True):
            results.append((case, verdict))
            _, operation, _, target, fault = case
            what = f"{operation.name}: {fault.name} at {target.where} {target.call.name} #{target.call.nth}"
            if not verdict.hit:
                print(f"{what}: nothing was hit of {target.call.arguments[:200]}", flush=True)
            for wrong in verdict.wrong:
                print(f"{what}, {verdict.hit}: {wrong}", flush=True)
    rows = table(results)
    print("\n".join(rows))
    if arguments.report:
        report(arguments.report, rows)
    return int(any(verdict.wrong for _, verdict in results))


if __name__ == "__main__":
    sys.exit(main())
