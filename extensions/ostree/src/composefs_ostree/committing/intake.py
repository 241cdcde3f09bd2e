"""From listed trees to file objects in the composefs repository: the coordinator of the workers.

Workers read, hash and stage; what they stage is given to the core while they go on, as in a pull
(docs/decisions/ostree-workers.md).  How far they may run ahead is bounded by ``STAGED_BYTES``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from composefs_ext import Core
from composefs_ext.errors import TooLargeError
from composefs_ext.puts import Puts
from composefs_ostree.committing.contents import JOB_SIZE, MadeRow, Maker
from composefs_ostree.committing.layers import Layers
from composefs_ostree.fetching.worker import HANDOVER, Workers
from composefs_ostree.formats.commit_stream import Entry, inline_limit
from composefs_ostree.held.storing import metadata_limit
from composefs_ostree.pulling.dealing import STAGED_BYTES

__all__ = ["Intake"]


class Intake:
    """All files of the listed trees on their way in; ``run`` does everything.

    Then ``ids`` has the file id of each job, and ``files`` each file object by its id.
    """

    def __init__(self, core: Core, layers: Layers) -> None:
        self._core = core
        self._layers = layers
        self.ids: list[bytes] = [b""] * layers.jobs
        self.files: dict[bytes, Entry] = {}
        self._left = layers.jobs
        self._next = 0
        self._puts = Puts(core)
        self._metadata_left = metadata_limit(core)

    def run(self) -> None:
        """Make all files; raise the error of the first that fails."""
        core, layers, repository = self._core, self._layers, self._core.repo
        limit = inline_limit(repository.algorithm)
        measured = None if repository.secure else repository.algorithm
        workers = Workers(core, lambda packs: Maker(layers, packs, limit, measured))
        progress = core.progress("files", unit="bytes")
        try:
            while self._left or self._puts:
                # What was answered first: it makes room to deal and to send, and nothing else may be left to wake us.
                for row, stored in self._puts.taken():
                    self._done(row, stored["id"])
                self._deal(workers)
                self._puts.send()
                if not (self._left or self._puts) or self._puts.answered:
                    continue
                for row in cast("Iterator[MadeRow]", workers.rows()):
                    self._take(row)
                    progress.advance(row[2])
        finally:
            workers.end()
        progress.finish()

    def _deal(self, workers: Workers) -> None:
        """Hand jobs to the workers, to the least loaded first; start another one while all are busy."""
        while self._next < self._layers.jobs and self._puts.bytes < STAGED_BYTES:
            worker = workers.for_files(HANDOVER)
            if worker is None:
                return
            end = min(self._next + HANDOVER, self._layers.jobs)
            worker.deal([number.to_bytes(JOB_SIZE, "big") for number in range(self._next, end)])
            self._next = end

    def _take(self, row: MadeRow) -> None:
        _, data, size, staged, _, content = row
        self._metadata_left -= len(data)
        if self._metadata_left < 0:
            raise TooLargeError(
                "the commit has too many files, or too many attributes, to be kept as one stream",
                hint="commit the tree in parts",
            )
        if staged is None:
            self._done(row, content)
        else:
            name, offset = (staged, None) if isinstance(staged, str) else staged
            self._puts.add(row, name, size, offset)

    def _done(self, row: MadeRow, content: str | None) -> None:
        job, data, _, _, file_id, _ = row
        self._left -= 1
        self.ids[int.from_bytes(job, "big")] = file_id
        self.files[file_id] = Entry(data, content)
