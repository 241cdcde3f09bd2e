"""Work in threads: in order, heard by the core meanwhile, no more of it begun than is needed; and in a process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest

from composefs_ext import Core
from composefs_ext.workers import Channel, WorkerProcess, end_all, in_threads, wait_for_any

MANY = 10_000


class Heard:
    """A core that counts how often it was listened to, and cancels after so many times."""

    def __init__(self, patience: int = MANY) -> None:
        self.times = 0
        self._patience = patience

    def pump(self, _timeout: float) -> None:
        self.times += 1
        if self.times > self._patience:
            raise KeyboardInterrupt


def test_items_are_taken_as_they_are_needed() -> None:
    """A million that wait take two gigabytes: a commit has so many files."""
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for each in range(MANY):
            taken += 1
            yield each

    heard = Heard()
    done = in_threads(cast("Core", heard), lambda each: each + 1, items())
    for each in range(MANY):
        assert next(done) == (each, each + 1)
        assert taken < each + MANY / 5
    assert next(done, None) is None
    assert heard.times == MANY


def test_what_was_not_begun_before_the_core_cancels_never_is() -> None:
    """Neither what is still to be taken, nor what waits for a thread."""
    patience = 10
    cancelled = Event()
    begun = []

    class Cancelling(Heard):
        def pump(self, timeout: float) -> None:
            try:
                super().pump(timeout)
            except KeyboardInterrupt:
                cancelled.set()
                raise

    def work(item: int) -> None:
        begun.append(item)
        if item > patience:
            cancelled.wait()
            time.sleep(0.1)  # for who cancels to be quicker

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(cast("Core", Cancelling(patience)), work, range(MANY)))
    assert len(begun) < MANY / 20


def test_a_process_gets_one_message_after_the_other_and_ends_with_who_made_it(tmp_path: Path) -> None:
    def serve(channel: Channel) -> None:
        while (job := channel.wait()) is not None:
            channel.send((job, os.getcwd()))

    worker = WorkerProcess(serve, str(tmp_path))
    jobs = [1, b"2" * 200_000, ["3", None]]
    for job in jobs:
        worker.send(job)
    done: list[Any] = []
    while len(done) < len(jobs):
        done += worker.messages()
    assert done == [(job, str(tmp_path)) for job in jobs]
    pid = worker._pid
    worker._channel.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    worker._pid = 0
    worker.end()


def test_processes_that_are_ended_together_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = [WorkerProcess(lambda _: time.sleep(600), str(tmp_path)) for _ in range(2)]
    pids = [worker._pid for worker in workers]
    done = []
    kill, wait = os.kill, os.waitpid
    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", lambda *arguments: (done.append("kill"), kill(*arguments)))
        patch.setattr(os, "waitpid", lambda *arguments: (done.append("wait"), wait(*arguments)))
        end_all(workers)
    assert done[:2] == ["kill", "kill"]  # not one after the other
    for worker, pid in zip(workers, pids, strict=True):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        worker.end()  # again, which does nothing


def test_whoever_has_something_to_say_is_heard(tmp_path: Path) -> None:
    class Talking(Heard):
        def __init__(self) -> None:
            super().__init__()
            self.read_end, self.write_end = os.pipe()

        def fileno(self) -> int:
            return self.read_end

        def pump(self, timeout: float) -> None:
            super().pump(timeout)
            os.read(self.read_end, 1)

    def serve(channel: Channel) -> None:
        while (job := channel.wait()) is not None:
            channel.send(job)

    core = Talking()
    workers = [WorkerProcess(serve, str(tmp_path)) for _ in range(2)]
    heard = cast("Core", core)
    try:
        assert wait_for_any(heard, workers, 0) == []
        workers[1].send("job")
        assert wait_for_any(heard, workers, 60) == [workers[1]]
        assert (workers[1].messages(), core.times) == (["job"], 0)
        os.write(core.write_end, b"x")
        assert wait_for_any(heard, workers) == []
        assert core.times == 1
    finally:
        for worker in workers:
            worker.end()
        os.close(core.read_end)
        os.close(core.write_end)
