"""Worker processes: fetching, inflating, hashing and staging of content, one process a core.

Nothing but ids goes down to a worker and nothing but rows comes up; bodies never cross between processes, which is what
makes two of them twice as fast as one.  What is done with an id is up to :class:`composefs_ostree.files.Files`.

A message down is a string of 32-byte file ids, one up a list of rows as :mod:`composefs_ostree.content` makes them, or
a pair (file id, error as on the wire) for a file that failed.
"""

from __future__ import annotations

from composefs_ext.errors import from_wire
from composefs_ext.workers import WorkerProcess
from composefs_ostree.names import ID_SIZE
from composefs_ostree.transport import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from composefs_ext.errors import ExtError
    from composefs_ext.workers import Channel
    from composefs_ostree.content import Row
    from composefs_ostree.files import Files

__all__ = ["HANDOVER", "Worker"]

HANDOVER = 32
"""Ids in one message.  A worker has at most two of these, so that the next one is there when it comes to it."""

_ROWS_BYTES = 4 << 20
_LAST_FEW = 8


class Worker(WorkerProcess):
    """The coordinator's view of one worker process, which it forks.

    ``outstanding`` counts the ids that it has and whose rows have not come back, ``failure`` is the error of the first
    file that failed.
    """

    def __init__(self, number: int, make_files: Callable[[], Files], staging: str) -> None:
        super().__init__(lambda channel: _serve(channel, make_files(), f"w{number}"), staging)
        self.outstanding = 0
        self.failure: ExtError | None = None

    def deal(self, ids: list[bytes]) -> None:
        """Hand over files to fetch, at most HANDOVER of them."""
        self.outstanding += len(ids)
        self.send(b"".join(ids))

    def rows(self) -> list[Row]:
        """Return the rows that have come; those of failed files only count, and set ``failure``."""
        rows: list[Row] = []
        for row in (row for message in self.messages() for row in message):
            self.outstanding -= 1
            if len(row) != 2:
                rows.append(row)
            elif self.failure is None:
                self.failure = from_wire(row[1])
        return rows


def _serve(channel: Channel, files: Files, prefix: str) -> None:
    """Work until the coordinator closes the channel."""
    started = ended = 0
    rows: list[Any] = []
    size = 0
    while True:
        for _ in wait(files, [channel.fileno()]):
            messages = channel.receive()
            if messages is None:
                return
            for ids in messages:
                for start in range(0, len(ids), ID_SIZE):
                    started += 1
                    files.start(ids[start : start + ID_SIZE], f"{prefix}-{started}")
        for row in files.step():
            ended += 1
            rows.append(row)
            size += len(row[1])
        # Rows go up in lots while there is more to do, and at once when only the last few are under way.
        if rows and (len(rows) >= HANDOVER or size >= _ROWS_BYTES or started - ended <= _LAST_FEW):
            channel.send(rows)
            rows = []
            size = 0
