"""Layers on their way in, several at a time: the coordinator of the worker processes.

Workers stage files; here they are handed to the core, and when all of a layer are stored, so is its stream, still
without a name.  The largest layer is begun first.  Whoever waits for one layer, or reads its entries while it comes,
keeps the others coming.
"""

from __future__ import annotations

import select
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from composefs_ext.errors import CancelledError, ExtError, from_wire
from composefs_ext.puts import Puts
from composefs_ext.workers import WorkerProcess, available_cores
from composefs_oci.documents import Counts
from composefs_oci.layers.entry_log import read_log
from composefs_oci.layers.fetch import DONE, FAILED, FILES, TELL, Job, log_name, serve, staged_cost
from composefs_oci.layers.layer import Unpacked
from composefs_oci.layers.stored import StoredLayer
from composefs_oci.layers.stream import most_inline, put_layer, references
from composefs_oci.layers.whole import known
from composefs_oci.names import BLOB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Self

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.progress import Progress
    from composefs_ext.rows import Stored
    from composefs_oci.formats.tar import Entry
    from composefs_oci.layers.stored import Content
    from composefs_oci.sources.source import Source

__all__ = ["Arrivals", "Arrived"]

TICK = 1000
"""Milliseconds."""
TAKEN_LOT = 8 << 20
"""How much a worker has to have had taken before it is told: few enough messages that one side never waits for room."""


class Arrived(NamedTuple):
    """A layer that is stored: the id of its stream, which has no name yet; ``layer`` is None for a blob."""

    stream: str
    layer: StoredLayer | None
    counts: Counts


class _Layer:
    """A layer that is on its way: ``ids`` of its files so far, in order, and how much there is of the entries' log."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.ids: list[str] = []
        self.logged = 0
        self.new = self.new_bytes = self.present = 0
        self.unpacked: Unpacked | None = None
        self.stream: Pending[Stored] | None = None
        self.layer: StoredLayer | None = None


class _Worker:
    """A process, the number of its layer, -1 when it has none, and how much was taken of it that it was not told."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.job = -1
        self.taken = 0


class Arrivals:
    """Fetches layers; a context manager that ends the workers.

    ``arrived`` has what is stored, by the job's number.  When a layer fails, those that had come in whole are finished
    first, so that they can be named and need not come again.
    """

    def __init__(
        self,
        core: Core,
        jobs: Sequence[Job],
        open_source: Callable[[Callable[[str], object]], Source],
        tell: Callable[[int, Arrived], object] = lambda _number, _arrived: None,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        """``open_source`` is called in each worker, with what takes a line for the user.

        ``tell`` is called for each layer as soon as it is stored, whichever is waited for; ``tick`` once a second or
        more often.
        """
        self._core = core
        self._tell = tell
        self._tick = tick
        self._jobs = list(jobs)
        self._open_source = open_source
        self._max_inline = most_inline(core)
        self._left = deque(sorted(range(len(jobs)), key=lambda number: -jobs[number].descriptor.size))
        self._layers: dict[int, _Layer] = {}  # all that were begun
        self._open: set[int] = set()  # those that are not stored yet
        self._error: ExtError | None = None
        self._workers: list[_Worker] = []
        self._puts = Puts(core)
        self.arrived: dict[int, Arrived] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.end()

    def wait(self, number: int) -> Arrived:
        """Return a layer, by its job's number, when it is stored.  Raises whatever any of them fails with."""
        while number not in self.arrived:
            self._advance()
        return self.arrived[number]

    def entries(self, number: int) -> Iterator[tuple[Entry, Content]]:
        """Yield the entries of a layer of files while it comes.

        Raises as :meth:`wait` does.  What is wrong with the archive as a whole, its digest, shows after the last entry.
        """

        def written(read: int) -> int:
            self._advance(0)
            while (layer := self._layers.get(number)) is None or (layer.logged <= read and layer.unpacked is None):
                self._advance()
            return layer.logged

        for lot in read_log(self._core.staging.path_of(log_name(number)), written):
            ids = self._layers[number].ids
            for entry, content in lot:
                if isinstance(content, bytes):
                    yield entry, content
                    continue
                while content >= len(ids):
                    self._advance()
                yield entry, ids[content]

    def _advance(self, timeout: int = TICK) -> None:
        """Take in what has come, and if that is nothing wait for so many milliseconds."""
        if self._error is not None:
            raise self._error
        try:
            self._turn(timeout)
            self._take_answers()
            self._tick()
        except ExtError as error:
            self._error = error
            if not isinstance(error, CancelledError):
                self._settle()
            raise

    def _settle(self) -> None:
        """Have stored what had come in before something failed."""
        with suppress(ExtError):
            while self._puts or any(self._layers[number].stream for number in self._open):
                self._puts.send()
                if not self._has_answers():
                    self._core.pump(None)
                self._take_answers()

    def _turn(self, timeout: int) -> None:
        """Do everything that can be done without waiting, then wait for something to happen."""
        self._deal()
        self._puts.send()
        if self._has_answers():  # sending may have read answers, and nothing else would wake us
            return
        by_fd = {worker.process.fileno(): worker for worker in self._workers}
        poll = select.poll()
        for fd in (self._core.fileno(), *by_fd):
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(timeout):
            if fd in by_fd:
                for message in by_fd[fd].process.messages():
                    self._hear(by_fd[fd], message)
            else:
                self._core.pump(0)

    def _deal(self) -> None:
        """Give each free worker a layer; start one while all are busy and there are processors."""
        while self._left:
            worker = next((each for each in self._workers if each.job < 0), None)
            if worker is None:
                if len(self._workers) >= available_cores():
                    return
                worker = self._start()
            number = self._left.popleft()
            job = self._jobs[number]
            label = job.diff_id or job.descriptor.digest
            progress = self._core.progress(label, total=job.descriptor.size, unit="bytes")
            self._layers[number] = _Layer(progress)
            self._open.add(number)
            worker.job = number
            worker.process.send(number)

    def _start(self) -> _Worker:
        number = len(self._workers)
        staging = self._core.staging.path
        shared = (self._jobs, self._open_source, staging, number, self._max_inline, self._core.features)
        process = WorkerProcess(lambda channel: serve(channel, *shared), staging)
        worker = _Worker(process)
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker, message: Any) -> None:
        """Take in a message of a worker."""
        number = worker.job
        match message:
            case (kind, rows, read, logged) if kind == FILES:
                self._layers[number].progress.advance(read)
                self._layers[number].logged = logged
                for name, size, offset in rows:
                    self._puts.add((number, worker, size), name, size, offset)
            case (kind, fields) if kind == DONE:
                self._layers[number].unpacked = Unpacked(*fields)
                worker.job = -1
                self._finish(number)
            case (kind, text) if kind == TELL:
                self._core.log("info", text)
            case (kind, error) if kind == FAILED:
                raise from_wire(error)

    def _has_answers(self) -> bool:
        return self._puts.answered or any(self._is_stored(number) for number in self._open)

    def _is_stored(self, number: int) -> bool:
        stream = self._layers[number].stream
        return stream is not None and stream.done

    def _take_answers(self) -> None:
        numbers = set()
        for (number, worker, size), stored in self._puts.taken():
            layer = self._layers[number]
            layer.ids.append(stored["id"])
            if stored.get("stored") == "present":
                layer.present += 1
            else:
                layer.new += 1
                layer.new_bytes += size
            worker.taken += staged_cost(size)
            numbers.add(number)
        for worker in self._workers:
            if worker.taken >= TAKEN_LOT:
                worker.process.send(-worker.taken)
                worker.taken = 0
        for number in numbers:
            self._finish(number)
        for number in [each for each in self._open if self._is_stored(each)]:
            layer = self._layers[number]
            assert layer.stream is not None
            assert layer.unpacked is not None
            stream = layer.stream.result()["id"]
            layer.progress.finish()
            counts = Counts(layer.new, layer.new_bytes, layer.present, layer.unpacked.inline_size)
            self.arrived[number] = Arrived(stream, layer.layer, counts)
            self._open.remove(number)
            self._tell(number, self.arrived[number])

    def _finish(self, number: int) -> None:
        """Have a layer's stream stored, if all of its files are."""
        layer, job = self._layers[number], self._jobs[number]
        unpacked = layer.unpacked
        if unpacked is None or len(layer.ids) < unpacked.files:
            return
        if not unpacked.inline:
            layer.stream = self._core.stream_put(BLOB, chunks=[0], object_refs=layer.ids)
            return
        parts = references(unpacked, layer.ids)
        layer.stream = put_layer(self._core, unpacked, parts)
        layer.layer = StoredLayer(
            job.diff_id or unpacked.diff_id,
            self._core.staging.path_of(unpacked.inline),
            parts.chunks,
            parts.object_refs,
            unpacked.size,
            known(parts.expanded),
        )
