"""Progress of the core's own work, as events."""

from __future__ import annotations

import pytest

from composefs.cli.progress import Reporting
from composefs.observe import Observers, Progress, sink


class Seen:
    def __init__(self) -> None:
        self.events: list[tuple[str, int | None, int | None]] = []

    @sink
    def progress(self, event: Progress) -> None:
        self.events.append((event.kind, event.done, event.total))

    @sink
    def output(self) -> None:
        self.events.append(("room", None, None))


def test_the_last_number_is_told_however_soon_it_came() -> None:
    seen = Seen()
    with Reporting(Observers(seen), "copy", "copying") as report:
        for done in range(4):
            report(done, 3)
    assert seen.events == [("started", 0, 3), ("done", 3, 3)]


def test_a_total_that_nobody_knew_is_what_was_done() -> None:
    seen = Seen()
    with Reporting(Observers(seen), "files", "rootfs") as report:
        report(0)
        report(7)
    assert seen.events == [("started", 0, None), ("done", 7, 7)]


def test_what_was_interrupted_is_not_done() -> None:
    seen = Seen()

    def work() -> None:
        with Reporting(Observers(seen), "copy", "copying") as report:
            report(1, 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen.events == [("started", 1, 3)]


def test_what_comes_after_output_is_told_at_once() -> None:
    seen = Seen()
    with Reporting(Observers(seen), "measuring", "measuring") as report:
        report(0)
        report(1)
        report.make_room()
        report(2)
        report(3)
    room = ("room", None, None)
    assert seen.events == [("started", 0, None), room, ("progress", 2, None), ("done", 3, 3)]
