"""Commands that change a repository, disturbed at a sample of the system calls that do; `make faults` takes all.

What is judged is told in tests/support/judged.py, and docs/reliability.md has the numbers of all.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import strace
from support.faulted import ATTEMPTS, OPERATIONS, Operation, Target, Workshop, attempt, record
from support.judged import Clean
from support.strace import Fault

SAMPLE = 4
"""How many calls of an operation each fault is tried at; another fault takes others."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(tmp_path_factory.mktemp("workshop")).make().serving() as made:
        yield made


@functools.cache
def recorded(workshop: Workshop, operation: Operation) -> tuple[Clean, list[Target]]:
    return record(workshop, operation)


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_a_fault_loses_nothing(workshop: Workshop, operation: Operation, fault: Fault) -> None:
    clean, targets = recorded(workshop, operation)
    shift = list(Fault).index(fault)
    count = len(targets)
    verdicts = []
    for number in range(SAMPLE):
        target = targets[(number * len(Fault) + shift) * count // (SAMPLE * len(Fault))]
        verdict = attempt(workshop, operation, clean, target, fault)
        assert not verdict.wrong, (target, verdict.hit)
        verdicts.append(verdict)
    assert any(verdict.hit for verdict in verdicts)
    assert any(verdict.failed for verdict in verdicts), "no fault that was injected mattered"


def named(name: str) -> Operation:
    return next(each for each in OPERATIONS if each.name == name)


@pytest.mark.parametrize("name", ["pull", "pull over HTTP", "commit"])
def test_what_staging_refuses_is_not_blamed_on_what_is_read(workshop: Workshop, name: str) -> None:
    operation = named(name)
    _, targets = recorded(workshop, operation)
    written = [each for each in targets if "write" in each.call.name]
    target = next(each for each in written if each.call.file.startswith("w0-"))

    def prefix(log: Path, *, children: bool) -> list[str]:
        return strace.injector(log, target.call.name, target.call.nth, Fault.EIO, children=children)

    for _ in range(ATTEMPTS):
        with workshop.run(operation.repository) as run:
            done = run.do(operation, "extension", prefix, target.files)
            if any(each.injected for each in run.calls()):
                break
    assert done.returncode == 1
    assert " cannot be stored: Input/output error (the disk " in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_repair_that_cannot_be_made_durable_names_the_repository(workshop: Workshop) -> None:
    operation = named("repair")

    def prefix(log: Path, *, children: bool) -> list[str]:
        return strace.injector(log, "syncfs", 1, Fault.EIO, children=children)

    with workshop.run(operation.repository) as run:
        done = run.do(operation, "core", prefix)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cfsctl: making everything durable in {run.repository}: Input/output error (")


@pytest.mark.parametrize(("fault", "status"), [(Fault.ENOSPC, 8), (Fault.EIO, 1)], ids=["ENOSPC", "EIO"])
def test_a_delta_whose_base_the_disk_denies_lacks_no_objects(workshop: Workshop, fault: Fault, status: int) -> None:
    operation = named("apply-delta")
    _, targets = recorded(workshop, operation)
    name = next(each.call.file for each in targets if each.call.file.startswith("object_refs-"))

    def prefix(log: Path, *, children: bool) -> list[str]:
        return [*strace.injector(log, "openat", 1, fault, children=children), "-P", name]

    with workshop.run(operation.repository) as run:
        done = run.do(operation, "core", prefix)
    assert done.returncode == status
    assert re.match("cfsctl: (commit [0-9a-f]{64}: )?creating staged file object_refs-", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
