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
from composefs_ext.staging import Staging
from composefs_ext.workers import WorkerProcess, available_cores
from composefs_oci.documents import Counts
from composefs_oci.layers.entry_log import read_log
from composefs_oci.layers.fetch import DONE, FAILED, FILES, TELL, serve, staged_cost
from composefs_oci.layers.stream import most_inline, put_layer
from composefs_oci.layers.unpacking import Unpacked
from composefs_oci.names import BLOB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any, Self

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.progress import Progress
    from composefs_ext.rows import Stored
    from composefs_oci.formats.tar import Entry
    from composefs_oci.layers.fetch import Job
    from composefs_oci.layers.stored import Content
    from composefs_oci.sources.source import Opener

__all__ = ["Arrivals", "Arrived"]

TICK = 1000
"""Milliseconds."""
TAKEN_LOT = 8 << 20
"""How much a worker has to have had taken before it is told: few enough messages that one side never waits for room."""


class Arrived(NamedTuple):
    """A layer that is stored: the id of its stream, which has no name yet."""

    stream: str
    counts: Counts


class _Layer:
    """A layer that is on its way: ``ids`` of its files so far, in order, and how much there is of its entries' ``log``.

    ``unpacked`` is set when the worker is done with it; ``stream`` when all files are stored too.
    """

    def __init__(self, digest: str, log: str, progress: Progress) -> None:
        self.digest = digest
        self.log = log
        self.progress = progress
        self.ids: list[str] = []
        self.logged = 0
        self.new = self.new_bytes = self.present = 0
        self.unpacked: Unpacked | None = None
        self.stream: Pending[Stored] | None = None

    @property
    def is_stored(self) -> bool:
        """Whether its stream is stored too."""
        return self.stream is not None and self.stream.done

    def file_stored(self, stored: Stored, size: int) -> None:
        """Note what the core made of the next file."""
        self.ids.append(stored["id"])
        if stored.get("stored") == "present":
            self.present += 1
        else:
            self.new += 1
            self.new_bytes += size

    def arrived(self) -> Arrived:
        """Return it as stored."""
        assert self.stream is not None
        assert self.unpacked is not None
        counts = Counts(self.new, self.new_bytes, self.present, self.unpacked.inline_size)
        return Arrived(self.stream.result()["id"], counts)


class _Worker:
    """A process, the layer that it is at, and how much was taken of it that it was not told."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.layer: _Layer | None = None
        self.taken = 0


class Arrivals:
    """Fetches layers; a context manager that ends the workers.

    ``arrived`` has what is stored, by digest.  When a layer fails, those that had come in whole are finished first, so
    that they can be named and need not come again.
    """

    def __init__(
        self,
        core: Core,
        jobs: Mapping[str, Job],
        open_source: Opener,
        tell: Callable[[str, Arrived], object] = lambda _digest, _arrived: None,
        tick: Callable[[], object] = lambda: None,
    ) -> None:
        """``jobs`` are by the digests that the layers have here; ``open_source`` is called in each worker, with what
        takes a line for the user.

        ``tell`` is called for each layer as soon as it is stored, whichever is waited for; ``tick`` once a second or
        more often.
        """
        self._core = core
        self._tell = tell
        self._tick = tick
        self._jobs = jobs
        self._open_source = open_source
        self._left = deque(sorted(jobs, key=lambda digest: -jobs[digest].descriptor.size))
        self._layers: dict[str, _Layer] = {}  # all that were begun
        self._open: list[_Layer] = []  # those that are not stored yet
        self._error: ExtError | None = None
        self._workers: list[_Worker] = []
        self._puts = Puts(core)
        self.arrived: dict[str, Arrived] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.end()

    def wait(self, digest: str) -> Arrived:
        """Return a layer when it is stored.  Raises whatever any of them fails with."""
        while digest not in self.arrived:
            self._advance()
        return self.arrived[digest]

    def entries(self, digest: str) -> Iterator[tuple[Entry, Content]]:
        """Yield the entries of a layer of files while it comes.

        Raises as :meth:`wait` does.  What is wrong with the archive as a whole, its digest, shows after the last entry.
        """
        while digest not in self._layers:
            self._advance()
        layer = self._layers[digest]
        ids = layer.ids

        def written(read: int) -> int:
            self._advance(0)
            while layer.logged <= read and layer.unpacked is None:
                self._advance()
            return layer.logged

        for lot in read_log(self._core.staging.path_of(layer.log), written):
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
            while self._puts or any(layer.stream for layer in self._open):
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
            worker = next((each for each in self._workers if each.layer is None), None)
            if worker is None:
                if len(self._workers) >= available_cores():
                    return
                worker = self._start()
            digest = self._left.popleft()
            progress = self._core.progress(digest, total=self._jobs[digest].descriptor.size, unit="bytes")
            layer = _Layer(digest, self._core.staging.new_name("entries"), progress)
            worker.layer = self._layers[digest] = layer
            self._open.append(layer)
            worker.process.send((digest, layer.log))

    def _start(self) -> _Worker:
        core = self._core
        staging = Staging(core.staging.path, tag=f"w{len(self._workers)}")
        shared = (self._jobs, self._open_source, staging, most_inline(core), core.features)
        worker = _Worker(WorkerProcess(lambda channel: serve(channel, *shared), staging.path))
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker, message: Any) -> None:
        """Take in a message of a worker."""
        layer = worker.layer
        assert layer is not None
        match message:
            case (kind, rows, read, logged) if kind == FILES:
                layer.progress.advance(read)
                layer.logged = logged
                for name, size, offset in rows:
                    self._puts.add((layer, worker, size), name, size, offset)
            case (kind, fields) if kind == DONE:
                layer.unpacked = Unpacked(*fields)
                worker.layer = None
                self._finish(layer)
            case (kind, text) if kind == TELL:
                self._core.log("info", text)
            case (kind, error) if kind == FAILED:
                raise from_wire(error)

    def _has_answers(self) -> bool:
        return self._puts.answered or any(layer.is_stored for layer in self._open)

    def _take_answers(self) -> None:
        for (layer, worker, size), stored in self._puts.taken():
            layer.file_stored(stored, size)
            worker.taken += staged_cost(size)
            self._finish(layer)
        for worker in self._workers:
            if worker.taken >= TAKEN_LOT:
                worker.process.send(worker.taken)
                worker.taken = 0
        for layer in [each for each in self._open if each.is_stored]:
            arrived = self.arrived[layer.digest] = layer.arrived()
            layer.progress.finish()
            self._open.remove(layer)
            self._tell(layer.digest, arrived)

    def _finish(self, layer: _Layer) -> None:
        """Have a layer's stream stored, if all of its files are."""
        unpacked = layer.unpacked
        if unpacked is None or len(layer.ids) < unpacked.files:
            return
        if self._jobs[layer.digest].diff_id is None:
            layer.stream = self._core.stream_put(BLOB, chunks=[0], object_refs=layer.ids)
        else:
            layer.stream = put_layer(self._core, unpacked, layer.ids)
