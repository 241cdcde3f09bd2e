"""Files on this machine, which are done one after the other: nothing has to be waited for.

A few are done at a time, for a process to see whether it is still wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["READ_SIZE", "Jobs", "ReadyFiles"]

READ_SIZE = 64 << 10  # above 128 KiB, malloc maps the buffer of every read anew: 40 µs instead of 6 for a small file

_AT_ONCE = 16
_BYTES_AT_ONCE = 4 << 20
"""Files that are done in a step, and bytes of content after which no other is begun."""


class ReadyFiles:
    """A `Waitable` of :mod:`composefs_ostree.fetching.transport` that is always ready.

    ``_queue`` has those that ``step`` will come to.
    """

    _queue: deque[Any]

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Return nothing to watch."""
        return [], []

    def timeout(self) -> float | None:
        """Return 0 while there is something to do."""
        return 0.0 if self._queue else None


class Jobs(ReadyFiles, ABC):
    """The ``Files`` of a worker, whose file ids may be numbers; how one is done, a class says in ``_do``."""

    def __init__(self) -> None:
        self._queue: deque[tuple[bytes, str]] = deque()

    def start(self, job: bytes, staged: str) -> None:
        """Queue a job; what it stages goes to the new file ``staged``."""
        self._queue.append((job, staged))

    def step(self) -> list[Any]:
        """Do the next few; return the row or the failure of each."""
        rows: list[Any] = []
        size = 0
        while self._queue and len(rows) < _AT_ONCE and size < _BYTES_AT_ONCE:
            row = self._do(*self._queue.popleft())
            rows.append(row)
            size += row[2] if len(row) > 2 else 0
        return rows

    @abstractmethod
    def _do(self, job: bytes, staged: str) -> tuple[Any, ...]:
        """Return the row of a job, whose third member is its size, or its failure, which has two."""
