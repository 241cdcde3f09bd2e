"""What a worker process does with files of this machine: a few at a time, to see whether it is still wanted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque

from composefs_ostree.fetching.transport import ReadyFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Jobs"]

_AT_ONCE = 16
_BYTES_AT_ONCE = 4 << 20
"""Files that are done in a step, and bytes of content after which no other is begun."""


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
