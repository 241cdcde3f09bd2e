"""Progress of the core's own work, told by callbacks, as events for the observers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from composefs.observe import Kind, Progress

if TYPE_CHECKING:
    from composefs.observe import Observers

__all__ = ["Reporting"]

REPORT_EVERY = 0.1
"""Seconds between two progress events."""


class Reporting:
    """A callback (done, total), as a context manager, that tells observers of it, at most ten times a second.

    A ``total`` that nobody knows before the end is left out.  Work that fails or is interrupted never ends with "done".
    """

    def __init__(self, observers: Observers, name: str, label: str) -> None:
        self._observers = observers
        self._name = name
        self._label = label
        self._last: tuple[int, int | None] = (0, None)
        self._next = 0.0
        self._started = False

    def __call__(self, done: int, total: int | None = None) -> None:
        """Tell that ``done`` of ``total`` items are done."""
        self._last = (done, total)
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REPORT_EVERY
            self._event("progress" if self._started else "started")
            self._started = True

    def make_room(self) -> None:
        """Remove bars from the terminal before something else is written to it; the next call brings them back."""
        self._observers.output(b"")
        self._next = 0.0

    def _event(self, kind: Kind) -> None:
        done, total = self._last
        if kind == "done" and total is None:
            total = done
        self._observers.progress(Progress(self._name, kind, done, total, label=self._label))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._started and kind is None:
            self._event("done")
