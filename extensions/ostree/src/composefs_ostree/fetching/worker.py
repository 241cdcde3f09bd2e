"""Worker processes, as the coordinator sees them: fetching, inflating, hashing and staging, one process a core.

Nothing but ids goes down to a worker and nothing but rows comes up; bodies never cross between processes, which is what
makes two of them twice as fast as one.  What a worker does is in :mod:`composefs_ostree.fetching.serving`.
"""

from __future__ import annotations

from time import monotonic

from composefs_ext.errors import from_wire
from composefs_ext.workers import WorkerProcess, available_cores, end_all, wait_for_any
from composefs_ostree.fetching.serving import HANDOVER, serve
from composefs_ostree.fetching.traffic import ToldWaits, traffic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from composefs_ext import Core
    from composefs_ext.errors import ExtError
    from composefs_ext.packs import Packs
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.fetching.stage import Row

__all__ = ["HANDOVER", "Worker", "Workers"]


class Worker(WorkerProcess):
    """The coordinator's view of one worker process, which it forks.

    ``outstanding`` counts the rows that have not come back for what it was given, ``failure`` is the error of the first
    file that failed.  It has files or a part of a delta, never both: ``is_on_part`` tells.
    """

    def __init__(
        self,
        number: int,
        make_files: Callable[[Packs], Files],
        directory: str | int,
        features: Collection[str],
        tell: Callable[[str, float], object] = lambda _line, _seconds: None,
    ) -> None:
        """It works in ``directory``; ``features`` are those that were agreed with the core.

        ``tell`` gets a line for the user before each longer wait, and how many seconds that takes.
        """
        super().__init__(lambda channel: serve(channel, make_files, f"w{number}", features), directory)
        self._tell = tell
        self.outstanding = 0
        self.is_on_part = False
        self.failure: ExtError | None = None

    def deal(self, ids: list[bytes]) -> None:
        """Hand over files to fetch, at most HANDOVER of them."""
        self.is_on_part = False
        self.outstanding += len(ids)
        self.send(b"".join(ids))

    def deal_part(self, number: int, object_count: int) -> None:
        """Have a part of the delta carried out, which makes so many objects, by a worker that has nothing else."""
        self.is_on_part = True
        self.outstanding += object_count
        self.send(number)

    def rows(self) -> list[Row]:
        """Return the rows that have come; those of failed files only count, and set ``failure``."""
        rows: list[Row] = []
        for (received, waits), message in self.messages():
            traffic.received += received
            for line, seconds in waits:
                self._tell(line, seconds)
            for row in message:
                self.outstanding -= 1
                if len(row) != 2:
                    rows.append(row)
                elif self.failure is None:
                    self.failure = from_wire(row[1])
        return rows


class Workers:
    """The worker processes of a pull: each is started when there is work for it, and no more than there may be.

    ``most`` is how many these are: one a processor, if not fewer are wanted.  They work in staging, or in the open
    ``directory``.
    """

    def __init__(
        self,
        core: Core,
        make_files: Callable[[Packs], Files],
        most: int | None = None,
        *,
        directory: int | None = None,
    ) -> None:
        """``make_files`` is called in each worker process, with where small contents go."""
        self.most = min(available_cores(), most or available_cores())
        self._core = core
        self._make_files = make_files
        self._directory = core.staging.path if directory is None else directory
        self._workers: list[Worker] = []
        self._started = 0
        self._told = ToldWaits()

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over those that run."""
        return iter(self._workers)

    @property
    def are_busy(self) -> bool:
        """Whether any of them has something to do."""
        return any(worker.outstanding for worker in self._workers)

    @property
    def on_parts(self) -> int:
        """How many of them have a part of a delta to do."""
        return sum(worker.is_on_part and worker.outstanding > 0 for worker in self._workers)

    def for_files(self, busy: int | None) -> Worker | None:
        """Return the worker that has the fewest files to do, None if even that one has enough.

        Where it has ``busy`` files or more, another worker is started if there may be one; with None, only where no
        worker is free of parts.
        """
        free = [worker for worker in self._workers if not (worker.is_on_part and worker.outstanding)]
        least = min(free, key=lambda worker: worker.outstanding, default=None)
        are_busy = least is None or (busy is not None and least.outstanding >= busy)
        if are_busy and len(self._workers) < self.most:
            return self._start()
        return None if least is None or least.outstanding > HANDOVER else least

    def for_part(self) -> Worker | None:
        """Return one that has nothing to do; None if there is none and no other may be started."""
        worker = next((worker for worker in self._workers if not worker.outstanding), None)
        return self._start() if worker is None and len(self._workers) < self.most else worker

    def _start(self) -> Worker:
        worker = Worker(self._started, self._make_files, self._directory, self._core.features, self._tell)
        self._started += 1
        self._workers.append(worker)
        return worker

    def _tell(self, line: str, seconds: float) -> None:
        """Warn of a wait, once where a server sends all of them away."""
        if self._told.is_news(monotonic(), seconds):
            self._core.log("warning", line)

    def rows(self) -> Iterator[Row]:
        """Wait until the core or one of them has something to say; yield the rows that have come.

        Raises the error of the first file that failed.
        """
        for worker in wait_for_any(self._core, self._workers):
            yield from worker.rows()
            if worker.failure is not None:
                raise worker.failure

    def end_parts(self) -> int:
        """End those that were given a part last; return how many of them had not carried it out."""
        on_parts = [worker for worker in self._workers if worker.is_on_part]
        end_all(on_parts)
        self._workers = [worker for worker in self._workers if not worker.is_on_part]
        return sum(worker.outstanding > 0 or worker.failure is not None for worker in on_parts)

    def end(self) -> None:
        """End all."""
        end_all(self._workers)
