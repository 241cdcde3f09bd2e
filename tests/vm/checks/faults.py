"""Commands that change a secure repository, each with one of its system calls failing; enabling fs-verity is one.

This is what tests/support/faulted.py does outside, with the same rules.  A command is a fork here, which strace is
attached to before it begins.
"""

from __future__ import annotations

import collections
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from composefs.digest import SHA256
from support import strace
from support.judged import Clean, State, judge_repeated, judge_state
from support.strace import Call, Fault
from vm import lab
from vm.checks.common import measured, objects_of, repository_with_image
from vm.lab import cfsctl

__all__ = ["EVERY"]

EVERY = "every-fault"
"""A word on the kernel's command line: try all calls, not a sample."""

_SAMPLE = 1
_OPTIONS = ("--algorithm", SHA256.meta_name)


class _Job(NamedTuple):
    """``prepare`` makes a repository in a directory and returns it with the command's arguments; see Operation."""

    prepare: Callable[[Path], tuple[Path, list[str | Path]]]
    sweeps: bool = False


def check_faults_while_an_image_is_created(directory: Path) -> dict[str, dict[str, int]]:
    def prepare(work: Path) -> tuple[Path, list[str | Path]]:
        repository, _ = repository_with_image(work, *_OPTIONS)
        (work / "tree/usr/share/more").write_bytes(b"more" * 5000)
        for path in (work / "tree/usr/share/more", work / "tree/usr/share"):
            os.utime(path, (2, 2))
        return repository, ["create-image", work / "tree", "more"]

    return _sweep(directory, _Job(prepare))


def check_faults_while_verity_is_enabled(directory: Path) -> dict[str, dict[str, int]]:
    def prepare(work: Path) -> tuple[Path, list[str | Path]]:
        repository, _ = repository_with_image(work, "--insecure", *_OPTIONS)
        return repository, ["verity", "enable"]

    return _sweep(directory, _Job(prepare))


def check_faults_while_an_image_is_copied(directory: Path) -> dict[str, dict[str, int]]:
    def prepare(work: Path) -> tuple[Path, list[str | Path]]:
        source, _ = repository_with_image(work, "--insecure", *_OPTIONS)
        cfsctl("init", *_OPTIONS, work / "target")
        return work / "target", ["copy", "--from", source, "it"]

    return _sweep(directory, _Job(prepare))


def check_faults_while_garbage_is_collected(directory: Path) -> dict[str, dict[str, int]]:
    def prepare(work: Path) -> tuple[Path, list[str | Path]]:
        repository, _ = repository_with_image(work, *_OPTIONS)
        cfsctl("--repo", repository, "ref", "remove", "--image", "it")
        return repository, ["gc"]

    return _sweep(directory, _Job(prepare, sweeps=True))


def _sweep(directory: Path, job: _Job) -> dict[str, dict[str, int]]:
    """Try every fault; return {fault: {"injected", "stopped"}}.  Raises AssertionError with all that was lost."""
    work = directory / "clean"
    work.mkdir()
    repository, arguments = job.prepare(work)
    before = State.read(repository)
    log = work / "log"
    done = cfsctl("--repo", repository, *arguments, tracer=strace.recorder(log, children=False))
    clean = Clean(before, State.read(repository), done.stdout)
    targets = [call for call in strace.read(log) if call.changes([repository])]
    assert targets
    counts: dict[str, dict[str, int]] = {}
    lost = []
    for fault in Fault:
        counted = collections.Counter(injected=0, stopped=0)
        for number, target in enumerate(_chosen(targets, fault)):
            place = directory / f"{fault.name}-{number}"
            place.mkdir()
            stopped, wrong = _attempt(place, job, clean, target, fault)
            counted.update(injected=1, stopped=stopped)
            lost += [f"{fault.name} at {target}: {each}" for each in wrong]
        counts[fault.name] = dict(counted)
    assert not lost, "\n".join(lost)
    assert any(count["stopped"] for count in counts.values())
    return counts


def _chosen(targets: list[Call], fault: Fault) -> list[Call]:
    """Return all calls, or a few, other ones for each fault."""
    if lab.EVERY_FAULT:
        return targets
    shift = list(Fault).index(fault)
    step = _SAMPLE * len(Fault)
    numbers = {(number * len(Fault) + shift) * len(targets) // step for number in range(_SAMPLE)}
    return [targets[number] for number in sorted(numbers)]


def _attempt(work: Path, job: _Job, clean: Clean, target: Call, fault: Fault) -> tuple[bool, list[str]]:
    """Run the command with a fault, and once more; return whether the fault stopped it, and all that is wrong."""
    repository, arguments = job.prepare(work)
    log = work / "log"
    tracer = strace.injector(log, target.name, target.nth, fault, children=False)
    done = cfsctl("--repo", repository, *arguments, tracer=tracer, status=None)
    wrong = []
    if not any(call.injected for call in strace.read(log)):
        wrong.append("nothing was hit")
    if fault is Fault.KILL and done.returncode != -signal.SIGKILL:
        wrong.append(f"killed, it ends with {done.returncode}")
    if fault is not Fault.KILL and done.returncode and done.stderr.count("\n") != 1:
        wrong.append(f"no single line says what is wrong: {done.stderr!r}")
    wrong += judge_state(State.read(repository), clean)
    wrong += _fsck(repository)
    again = cfsctl("--repo", repository, *arguments, status=None)
    wrong += judge_repeated(again, State.read(repository), clean, sweeps=job.sweeps)
    wrong += _fsck(repository)
    for digest, path in objects_of(repository).items():
        if measured(path) != digest:
            wrong.append(f"{digest} has no fs-verity in the end")
    return done.returncode != 0, wrong


def _fsck(repository: Path) -> list[str]:
    done = cfsctl("--repo", repository, "fsck", status=None)
    return [f"fsck: {done.stdout}{done.stderr}"] if done.returncode else []
