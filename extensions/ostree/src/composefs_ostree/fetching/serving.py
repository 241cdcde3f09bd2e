"""What a worker process does: it has jobs done by its ``Files``, and sends what comes of them up in lots.

A message down is a string of 32-byte file ids, or the number of a static delta's part, which makes many objects.  One
up is what :class:`composefs_ostree.fetching.traffic.Traffic` has, and a list of rows as
:mod:`composefs_ostree.fetching.stage` describes them, or pairs (file id, error as on the wire) for files that failed.
What is done with an id is up to :class:`composefs_ostree.fetching.files.Files`.
"""

from __future__ import annotations

from time import monotonic

from composefs_ext.packs import Packs
from composefs_ext.staging import Staging
from composefs_ostree.fetching.stage import IN_STAGING
from composefs_ostree.fetching.traffic import traffic
from composefs_ostree.fetching.transport import wait
from composefs_ostree.formats.names import ID_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

    from composefs_ext.workers import Channel
    from composefs_ostree.fetching.files import Files

__all__ = ["HANDOVER", "serve"]

HANDOVER = 64
"""Ids in one message.  A worker has at most two of these, so that the next one is there when it comes to it."""

_ROWS_BYTES = 4 << 20
_ROWS_SECONDS = 0.5
_LAST_FEW = 8
"""Rows wait for others up to so many bytes, or so long, or until so few files are under way."""


def serve(channel: Channel, make_files: Callable[[Packs], Files], prefix: str, features: Collection[str]) -> None:
    """Work until the coordinator closes the channel.

    ``prefix`` begins the names of what is staged, ``features`` are those that were agreed with the core.
    """
    traffic.take()  # what this process was forked with is the coordinator's
    packs = Packs(Staging(".", prefix), features)
    files = make_files(packs)
    lot = _Lot()
    started = ended = 0
    while True:
        for _ in wait(files, [channel.fileno()]):
            messages = channel.receive()
            if messages is None:
                return
            for job in messages:
                if isinstance(job, int):
                    started += files.start_part(job, f"{prefix}-{started}")  # type: ignore[attr-defined]  # PartFiles
                    continue
                for start in range(0, len(job), ID_SIZE):
                    started += 1
                    files.start(job[start : start + ID_SIZE], f"{prefix}-{started}")
        for row in files.step():
            ended += 1
            lot.add(row)
        if traffic.waits or lot.is_due(started - ended):
            channel.send((traffic.take(), _written(packs, lot.rows, files)))
            lot = _Lot()


class _Lot:
    """Rows that go up together, while there is more to do; the last few go at once, and so does a failure."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._size = 0
        self._due = monotonic() + _ROWS_SECONDS

    def add(self, row: Any) -> None:
        self.rows.append(row)
        self._size += len(row[1])
        if len(row) == 2:  # behind which nobody waits for more
            self._due = 0.0

    def is_due(self, left: int) -> bool:
        """Tell whether to send it; ``left`` is how many jobs are under way."""
        if not self.rows:
            return False
        is_full = len(self.rows) >= HANDOVER or self._size >= _ROWS_BYTES
        return is_full or left <= _LAST_FEW or monotonic() >= self._due


def _written(packs: Packs, rows: list[Any], files: Files) -> list[Any]:
    """Write the pack that rows speak of; return them, or if that fails the failure of those that do."""
    try:
        with IN_STAGING:
            packs.flush()
    except OSError as error:
        from composefs_ostree.fetching.files import failure  # loaded by whoever made ``files``

        return [
            failure(row[0], files.where(row[0]), error) if len(row) != 2 and isinstance(row[3], tuple) else row
            for row in rows
        ]
    return rows
