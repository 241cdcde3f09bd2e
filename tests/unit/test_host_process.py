"""Ending an extension at the worst moment: before it has a process group of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from composefs.ext.interrupts import Interrupts
from composefs.ext.process import Ended, Process, Program, spawn
from composefs.linux.landlock import Access, Ruleset


def cat(directory: Path) -> Process:
    with Ruleset(network=False) as ruleset:
        ruleset.allow("/", Access.READ | Access.EXECUTE)
        return spawn(Program("/bin/cat", str(directory), {}, {}, ruleset))


def ended(process: Process) -> Ended:
    process.wait()
    process.reap()
    return process.kill_left()


def test_a_process_without_its_own_group_yet_is_killed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = cat(tmp_path)

    def no_such_group(pid: int, number: int) -> None:
        raise ProcessLookupError(pid, number)

    monkeypatch.setattr(os, "killpg", no_such_group)
    process.kill_group()
    monkeypatch.undo()
    assert os.WTERMSIG(ended(process).status) == signal.SIGKILL


@pytest.mark.parametrize(
    ("asked", "signals", "are_killed"),
    [
        (0, [signal.SIGINT], False),
        (0, [signal.SIGINT, signal.SIGINT], True),
        (0, [signal.SIGINT, signal.SIGTERM], True),
        (0, [signal.SIGTERM, signal.SIGHUP], False),
        (0, [signal.SIGHUP, signal.SIGTERM], False),
        (0, [signal.SIGHUP, signal.SIGTERM, signal.SIGTERM], True),
        (1, [signal.SIGINT], True),
        (1, [signal.SIGHUP], True),
    ],
)
def test_the_second_request_kills_whoever_made_the_first(
    asked: int, signals: list[signal.Signals], are_killed: bool
) -> None:
    killed: list[bool] = []
    with Interrupts() as interrupts:
        interrupts.kill = lambda: killed.append(True)
        interrupts.count += asked  # as `ext check` does, which cancels
        for number in signals:
            signal.raise_signal(number)
    assert killed == [True] * are_killed
    assert interrupts.first is signals[0]


def test_killing_right_after_the_start_never_hangs(tmp_path: Path) -> None:
    for _ in range(50):
        process = cat(tmp_path)
        process.kill_group()
        assert os.WTERMSIG(ended(process).status) == signal.SIGKILL
