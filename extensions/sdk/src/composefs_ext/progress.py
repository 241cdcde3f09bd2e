"""Progress of one activity, sent as often as the core wants to hear of it and no more.

A fetcher may call :meth:`Progress.advance` for every object: most calls only add a number.
"""

from __future__ import annotations

from itertools import count
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self

__all__ = ["Progress"]

_ids = count(1)

_LARGEST = 2**53 - 1
"""No larger integer fits a message (P-4).  A total that is larger, as a source may claim, is left out."""


class Progress:
    """One line of progress; a context manager that ends it.  Get one from ``Core.progress``.

    ``notify`` is the connection's; ``interval`` the shortest time between two messages in seconds.
    """

    __slots__ = ("_ended", "_id", "_interval", "_next", "_notify", "_unit", "done", "label", "total")

    def __init__(
        self,
        notify: Callable[[str, dict[str, Any]], None],
        label: str,
        *,
        total: int | None,
        unit: str,
        interval: float,
    ) -> None:
        self.done = 0
        self.total = total
        self.label = label
        self._notify = notify
        self._unit = unit
        self._interval = interval
        self._id = f"p{next(_ids)}"
        self._ended = False
        self._next = monotonic() + interval
        self._send("started")

    def advance(self, amount: int = 1, *, total: int | None = None) -> None:
        """Count ``amount`` more as done; ``total`` replaces the total when more became known."""
        self.done += amount
        if total is not None:
            self.total = total
        now = monotonic()
        if now >= self._next and not self._ended:
            self._next = now + self._interval
            self._send("progress")

    def finish(self) -> None:
        """End it: everything is done."""
        if not self._ended:
            self._ended = True
            self._send("done")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()

    def _send(self, kind: str) -> None:
        message = {"id": self._id, "kind": kind, "done": self.done, "unit": self._unit, "label": self.label}
        if self.total is not None and self.total <= _LARGEST:
            message["total"] = self.total
        self._notify("progress", message)
