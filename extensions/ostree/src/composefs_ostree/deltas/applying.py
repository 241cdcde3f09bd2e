"""Applying a delta: its parts go to worker processes, what these stage goes to the core.

A part is unpacked by the worker that carries it out, so that several are decoded at a time and no content crosses from
process to process.  How far they run ahead is bounded as in a pull (:mod:`composefs_ostree.pull`): no further part is
begun while much is staged that the core has not taken.
"""

from __future__ import annotations

import select
from collections import deque
from contextlib import suppress

from composefs_ext.errors import (
    CancelledError,
    ExtError,
    MissingObjectError,
    NotFoundError,
    TooLargeError,
    UnsupportedError,
)
from composefs_ext.puts import Puts
from composefs_ext.workers import available_cores
from composefs_ostree.commit_stream import Entry
from composefs_ostree.deltas.output import METADATA
from composefs_ostree.deltas.parts import PartFiles, part_id
from composefs_ostree.deltas.sources import HeldFiles
from composefs_ostree.names import ObjectType
from composefs_ostree.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from composefs_ext import Core
    from composefs_ext.rows import Stored
    from composefs_ostree.commit_stream import CommitStream
    from composefs_ostree.content import Row
    from composefs_ostree.deltas.superblock import Delta
    from composefs_ostree.pull import Holder
    from composefs_ostree.transport import Transport

__all__ = ["UNUSABLE", "Applied", "apply"]

UNUSABLE = (MissingObjectError, NotFoundError, TooLargeError, UnsupportedError)
"""What makes a delta useless though nobody altered it: a part or an old file is gone, or it is beyond our limits."""

STAGED_BYTES = 64 << 20
"""As in a pull: bytes staged without an answer, above which no part is begun."""

_MAX_METADATA = 256 << 20


class Applied:
    """The objects that came of a delta; something that holds objects, for the pull of the rest.

    ``parts`` counts the parts that were carried out, ``metadata`` and ``files`` the objects.
    """

    def __init__(self, most: int) -> None:
        """``most`` bounds the bytes that are kept here: metadata, heads and small contents."""
        self.parts = 0
        self.metadata = 0
        self.files = 0
        self._entries: dict[bytes, Entry] = {}
        self._left = most
        self._most = most

    def get(self, object_id: bytes) -> Entry | None:
        """Return an object."""
        return self._entries.get(object_id)

    def add(self, object_id: bytes, entry: Entry) -> None:
        """Take in an object that has its id; raise TooLargeError when there is too much of them."""
        self._left -= len(entry.data)
        if self._left < 0:
            raise TooLargeError(
                f"the metadata of the delta has more than {self._most} bytes",
                hint="a commit of this size cannot be kept as one stream",
            )
        self._entries[object_id] = entry


def apply(
    core: Core,
    delta: Delta,
    make_transport: Callable[[], Transport],
    inline_limit: int,
    base: CommitStream | None,
    *,
    held: Sequence[Holder] = (),
    store: Callable[[bytes, Entry], None] | None = None,
    max_workers: int | None = None,
) -> Applied:
    """Carry out the parts of a delta and have the core store the files that they make.

    ``make_transport`` is called in each worker process, ``base`` is the stream of the delta's old commit.  Parts whose
    files are all held already (by an interrupted pull) are left out.  ``store`` is told of every file that has come.

    When the delta turns out to be useless, that is logged and what has come is returned.  Whatever has not the digest
    that it should have raises CorruptError, and what makes no sense FormatError.
    """
    assert core.repository is not None
    files = HeldFiles(base, core.repository.objects)
    applied = Applied(_MAX_METADATA)
    numbers = [number for number in range(len(delta.parts)) if not _is_held(delta, number, held)]
    if not numbers:
        return applied
    cores = min(available_cores(), max_workers or available_cores())
    run = _Run(
        core, delta, lambda: PartFiles(delta.parts, make_transport(), files, inline_limit), applied, store, cores
    )
    try:
        run.run(numbers)
    except UNUSABLE as error:
        core.log("warning", f"the delta is not used further, objects are fetched one by one: {error.message}")
    return applied


def _is_held(delta: Delta, number: int, held: Sequence[Holder]) -> bool:
    part = delta.parts[number]
    if not held:
        return False
    files = [object_id for kind, object_id in map(part.object, range(part.object_count)) if kind == ObjectType.FILE]
    return bool(files) and all(any(holder.get(file_id) for holder in held) for file_id in files)


class _Run:
    """The loop around the workers and the core."""

    def __init__(
        self,
        core: Core,
        delta: Delta,
        make_files: Callable[[], PartFiles],
        applied: Applied,
        store: Callable[[bytes, Entry], None] | None,
        cores: int,
    ) -> None:
        self._core = core
        self._delta = delta
        self._make_files = make_files
        self._applied = applied
        self._store = store
        self._cores = cores
        self._workers: list[Worker] = []
        self._to_do: deque[int] = deque()
        self._puts = Puts(core)

    def run(self, numbers: list[int]) -> None:
        """Carry out these parts."""
        self._to_do.extend(numbers)
        total = sum(self._delta.parts[number].plain for number in numbers)
        self._progress = self._core.progress("delta", total=total, unit="bytes")
        try:
            while not self._is_done():
                self._turn()
        except ExtError as error:
            if not isinstance(error, CancelledError):
                self._settle()
            raise
        finally:
            for worker in self._workers:
                worker.end()
        self._progress.finish()

    def _is_done(self) -> bool:
        return not (self._to_do or self._puts or any(worker.outstanding for worker in self._workers))

    def _settle(self) -> None:
        """Have stored what has come in before something failed, so that it need not come again."""
        with suppress(ExtError):
            self._take_answers(self._puts.rest())

    def _turn(self) -> None:
        self._take_answers(self._puts.taken())
        self._deal()
        self._puts.send()
        if self._is_done() or self._puts.answered:  # nothing else would wake us
            return
        by_fd = {worker.fileno(): worker for worker in self._workers if worker.outstanding}
        ready, _, _ = select.select([self._core.fileno(), *by_fd], [], [])
        for fd in ready:
            if fd not in by_fd:
                self._core.pump(0)
                continue
            worker = by_fd[fd]
            self._take_rows(worker.rows())
            if worker.failure is not None:
                raise worker.failure

    def _deal(self) -> None:
        """Give a part to each worker that has none; start as many as there may be while there are parts."""
        while self._to_do and self._puts.bytes < STAGED_BYTES:
            worker = next((worker for worker in self._workers if not worker.outstanding), None)
            if worker is None:
                if len(self._workers) == self._cores:
                    return
                worker = Worker(len(self._workers), self._make_files, self._core.staging.path)
                self._workers.append(worker)
            number = self._to_do.popleft()
            worker.deal([part_id(number)])
            # A row comes back for each object, not for each part.
            worker.outstanding += self._delta.parts[number].object_count - 1
            self._applied.parts += 1

    def _take_rows(self, rows: list[Row]) -> None:
        for row in rows:
            object_id, data, size, staged = row
            if size == METADATA:
                self._applied.metadata += 1
                self._applied.add(object_id, Entry(data, None))
                self._progress.advance(len(data))
                continue
            self._applied.files += 1
            if staged is None:
                self._stored(object_id, Entry(data, None))
            else:
                self._puts.add((object_id, data), staged, size)
            self._progress.advance(size)

    def _take_answers(self, answers: Iterator[tuple[Any, Stored]]) -> None:
        for (file_id, data), stored in answers:
            self._stored(file_id, Entry(data, stored["id"]))

    def _stored(self, file_id: bytes, entry: Entry) -> None:
        self._applied.add(file_id, entry)
        if self._store is not None:
            self._store(file_id, entry)
