"""The coordinator of a commit's making: whatever the order in which workers and core answer, it goes on to the end."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from composefs_ext.errors import TooLargeError
from composefs_ext.rows import FileRow
from composefs_ostree.committing import intake
from composefs_ostree.committing.contents import JOB_SIZE
from composefs_ostree.fetching import worker


class AnsweringLater:
    """A call that is answered when the core is next listened to."""

    def __init__(self, files: Sequence[FileRow]) -> None:
        self.done = False
        self._files = files

    def result(self) -> list[dict[str, Any]]:
        return [{"id": f"id of {file['name']}", "stored": "new"} for file in self._files]


class FakeCore:
    features: Sequence[str] = ()
    staging = SimpleNamespace(path="unused")
    repo = SimpleNamespace(algorithm="sha256", secure=False)

    def __init__(self) -> None:
        self.limits: dict[str, int] = {}
        self.unanswered: list[AnsweringLater] = []

    def progress(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(advance=lambda _: None, finish=lambda: None)

    def object_put(self, files: Sequence[FileRow]) -> AnsweringLater:
        self.unanswered.append(AnsweringLater(files))
        return self.unanswered[-1]

    def pump(self, _timeout: float) -> None:
        for call in self.unanswered:
            call.done = True
        self.unanswered.clear()


class FakeWorker:
    """Stages a file for each job, and says so one at a time."""

    failure = None
    is_on_part = False

    def __init__(self, *_: Any) -> None:
        self.jobs: list[bytes] = []

    @property
    def outstanding(self) -> int:
        return len(self.jobs)

    def deal(self, jobs: list[bytes]) -> None:
        self.jobs += jobs

    def rows(self) -> list[Any]:
        job = self.jobs.pop(0)
        return [(job, b"head", 1, f"staged {int.from_bytes(job, 'big')}", b"file" + job, None)]

    def kill(self) -> None:
        pass

    def end(self) -> None:
        pass


def start_workers(core: FakeCore, monkeypatch: pytest.MonkeyPatch, preferred: str) -> None:
    """Have workers that are no processes, and let the core or them be heard first."""

    def wait(_core: FakeCore, running: Sequence[FakeWorker]) -> list[FakeWorker]:
        busy = [each for each in running if each.jobs]
        assert busy or core.unanswered, "nothing would ever wake it"
        if busy and (preferred == "workers" or not core.unanswered):
            return busy
        core.pump(0)
        return []

    monkeypatch.setattr(worker, "Worker", FakeWorker)
    monkeypatch.setattr(worker, "available_cores", lambda: 1)
    monkeypatch.setattr(worker, "wait_for_any", wait)


@pytest.mark.parametrize("preferred", ["workers", "core"])
@pytest.mark.parametrize("jobs", [0, 1, 2, 3, 7, 300])
def test_nobody_waits_for_what_will_not_come(monkeypatch: pytest.MonkeyPatch, preferred: str, jobs: int) -> None:
    core = FakeCore()
    start_workers(core, monkeypatch, preferred)
    listing: Any = SimpleNamespace(jobs=jobs)
    either: Any = core
    made = intake.Intake(either, listing)
    made.run()
    assert made.ids == [b"file" + number.to_bytes(JOB_SIZE, "big") for number in range(jobs)]
    assert {entry.content for entry in made.files.values()} == {f"id of staged {number}" for number in range(jobs)}


@pytest.mark.parametrize(("limit", "fits"), [(12, True), (11, False)])
def test_heads_that_are_too_many_for_one_stream(monkeypatch: pytest.MonkeyPatch, limit: int, fits: bool) -> None:
    core = FakeCore()
    core.limits = {"stream_bytes": limit}
    start_workers(core, monkeypatch, "workers")
    listing: Any = SimpleNamespace(jobs=3)
    either: Any = core
    made = intake.Intake(either, listing)
    if fits:
        made.run()
        return
    with pytest.raises(TooLargeError, match="too many files, or too many attributes, to be kept as one stream"):
        made.run()


def test_workers_wait_while_much_is_staged_that_the_core_has_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    core = FakeCore()
    staged = []

    class CountingWorker(FakeWorker):
        def deal(self, jobs: list[bytes]) -> None:
            staged.append(made._puts.bytes)
            super().deal(jobs)

    start_workers(core, monkeypatch, "workers")
    monkeypatch.setattr(worker, "Worker", CountingWorker)
    monkeypatch.setattr(intake, "STAGED_BYTES", 10)
    listing: Any = SimpleNamespace(jobs=300)
    either: Any = core
    made = intake.Intake(either, listing)
    made.run()
    assert max(staged) < 10
    assert all(made.ids)
