"""Ending an extension at the worst moment: before it has a process group of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

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


def test_killing_right_after_the_start_never_hangs(tmp_path: Path) -> None:
    for _ in range(50):
        process = cat(tmp_path)
        process.kill_group()
        assert os.WTERMSIG(ended(process).status) == signal.SIGKILL
