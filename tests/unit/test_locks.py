"""Locks exclude whom they should, never wait silently, and are given up with their descriptor."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from composefs.errors import BusyError, CancelledError
from composefs.linux import locks
from composefs.linux.locks import lock, try_lock


@pytest.fixture
def opened(tmp_path: Path):
    fds: list[int] = []

    def open_again() -> int:
        fds.append(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY))
        return fds[-1]

    yield open_again
    for fd in fds:
        os.close(fd)


def test_shared_locks_go_together_and_exclude_the_exclusive_one(opened: Callable[[], int]) -> None:
    assert try_lock(opened(), exclusive=False)
    assert try_lock(opened(), exclusive=False)
    assert not try_lock(opened(), exclusive=True)


def test_busy_names_what_and_gives_the_remedy_at_once(opened: Callable[[], int]) -> None:
    assert try_lock(opened(), exclusive=True)
    with pytest.raises(BusyError, match="the thing is in use") as caught:
        lock(opened(), "the thing", exclusive=False, hint="wait for it")
    assert caught.value.hint == "wait for it"
    assert caught.value.retryable


def test_waiting_ends_when_the_lock_is_free(opened: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    holder = os.dup(opened())
    assert try_lock(holder, exclusive=True)
    held = [holder]
    monkeypatch.setattr(locks.time, "sleep", lambda _seconds: None)

    def release(fd: int, *, exclusive: bool) -> bool:
        if (result := try_lock(fd, exclusive=exclusive)) or not held:
            return result
        locks.fcntl.flock(held.pop(), locks.fcntl.LOCK_UN)
        return False

    monkeypatch.setattr(locks, "try_lock", release)
    lock(opened(), "the thing", exclusive=False, wait=60.0)
    assert not held
    os.close(holder)


def test_waiting_ends_when_the_user_gives_up(opened: Callable[[], int]) -> None:
    assert try_lock(opened(), exclusive=True)
    asked: list[bool] = []

    def interrupted() -> bool:
        asked.append(len(asked) > 1)
        return asked[-1]

    with pytest.raises(CancelledError, match="waiting for the thing"):
        lock(opened(), "the thing", exclusive=False, wait=1e6, interrupted=interrupted)
    assert asked == [False, False, True]
