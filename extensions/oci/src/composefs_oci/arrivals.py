"""Layers on their way in, several at a time: the coordinator of the worker processes.

Workers stage files; here they are handed to the core, and when all of a layer are stored, so is its stream.  That is
named at once, unless another one just was, so that an interrupted pull goes on behind it.  The largest layer is begun
first.  Whoever waits for one layer, or reads its entries while it comes, keeps the others coming.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from time import monotonic

from composefs_ext.errors import CancelledError, ExtError, from_wire
from composefs_ext.puts import Puts
from composefs_ext.staging import Staging
from composefs_ext.workers import WorkerProcess, available_cores, end_all, wait_for_any
from composefs_oci.documents import Counts
from composefs_oci.layers.entry_log import read_log
from composefs_oci.layers.fetch import DONE, FAILED, FILES, TELL, serve, staged_cost
from composefs_oci.layers.stream import most_inline, put_layer
from composefs_oci.layers.unpacking import Unpacked
from composefs_oci.names import BLOB, layer_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.progress import Progress
    from composefs_ext.rows import Stored, StreamName
    from composefs_oci.formats.tar import Entry
    from composefs_oci.layers.fetch import Job
    from composefs_oci.layers.stored import Content
    from composefs_oci.sources.source import Opener

__all__ = ["Arrivals"]

NAME_INTERVAL = 2.0
"""Seconds between two barriers for the sake of layers alone."""

TICK = 1.0
"""Seconds between two looks at what there is to be named."""
TAKEN_LOT = 8 << 20
"""Staged bytes of a worker that the core takes before the worker is told: so few messages never fill the channel."""


class _Layer:
    """A layer of which ``job`` is to be done, known by its ``digest`` here.

    ``ids`` are those of its files so far, in order, and ``logged`` is how much there is of its entries' ``log``.
    ``unpacked`` is set when the worker is done with it, ``id`` when its stream is stored.
    """

    progress: Progress
    """Set when a worker is given the layer."""

    def __init__(self, digest: str, job: Job, log: str) -> None:
        self.digest = digest
        self.job = job
        self.log = log
        self.ids: list[str] = []
        self.logged = 0
        self.new = self.new_bytes = self.present = 0
        self.unpacked: Unpacked | None = None
        self.id = ""

    def file_stored(self, stored: Stored, size: int) -> None:
        """Note what the core made of the next file."""
        self.ids.append(stored["id"])
        if stored.get("stored") == "present":
            self.present += 1
        else:
            self.new += 1
            self.new_bytes += size

    def counts(self) -> Counts:
        """Return what came with it."""
        assert self.unpacked is not None
        return Counts(self.new, self.new_bytes, self.present, self.unpacked.inline_size)


class _Worker(WorkerProcess):
    """A process; ``layer`` is what it is at, ``taken`` how many of its staged bytes were taken that it was not told."""

    layer: _Layer | None = None
    taken = 0


class Arrivals:
    """Fetches layers; a context manager that ends the workers.

    When something fails, the layers that had come in whole are stored and named first: they need not come again.
    """

    def __init__(self, core: Core, jobs: Mapping[str, Job], open_source: Opener) -> None:
        """``jobs`` are by the digests that the layers have here; ``open_source`` is called in each worker, with what
        takes a line for the user.
        """
        self._core = core
        self._jobs = jobs
        self._open_source = open_source
        self._layers = {digest: _Layer(digest, job, core.staging.new_name("entries")) for digest, job in jobs.items()}
        self._left = deque(sorted(self._layers.values(), key=lambda layer: -layer.job.descriptor.size))
        self._storing: deque[tuple[_Layer, Pending[Stored]]] = deque()  # streams, which are stored in this order
        self._error: ExtError | None = None
        self._workers: list[_Worker] = []
        self._puts = Puts(core)
        self._unnamed: list[StreamName] = []
        self._next_naming = monotonic() + NAME_INTERVAL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        end_all(self._workers)
        self._workers.clear()
        if isinstance(error, ExtError) and not isinstance(error, CancelledError):
            self._settle()

    def wait(self, digest: str) -> str:
        """Return the id of a layer's stream when it is stored.  Raises whatever any layer fails with."""
        layer = self._layers[digest]
        while not layer.id:
            self._advance()
        return layer.id

    def wait_for_all(self) -> tuple[dict[str, str], Counts]:
        """Return the ids of all streams by digest, and what came, when all are stored.  Raises as :meth:`wait` does."""
        counts = Counts()
        streams = {digest: self.wait(digest) for digest in self._layers}
        for layer in self._layers.values():
            counts = counts.plus(layer.counts())
        return streams, counts

    def entries(self, digest: str) -> Iterator[tuple[Entry, Content]]:
        """Yield the entries of a layer of files while it comes.

        Raises as :meth:`wait` does.  What is wrong with the archive as a whole, its digest, shows after the last entry.
        """
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

    def _advance(self, timeout: float = TICK) -> None:
        """Take in what has come, and if that is nothing wait for so many seconds."""
        if self._error is not None:
            raise self._error
        try:
            self._turn(timeout)
            self._take_answers()
        except ExtError as error:
            self._error = error
            raise
        if self._unnamed and monotonic() >= self._next_naming:
            self._name()

    def _settle(self) -> None:
        """Have stored and named what had come in before something failed."""
        with suppress(ExtError):
            while self._puts or self._storing:
                self._puts.send()
                if not self._has_answers():
                    self._core.pump(None)
                self._take_answers()
        if self._unnamed:
            self._name()

    def _name(self) -> None:
        """Name what has no name yet; the answer is not waited for: a failure is told at the end of the run."""
        self._core.publish(streams=self._unnamed)
        self._unnamed = []
        self._next_naming = monotonic() + NAME_INTERVAL

    def _turn(self, timeout: float) -> None:
        """Do everything that can be done without waiting, then wait for something to happen."""
        self._deal()
        self._puts.send()
        if self._has_answers():  # sending may have read answers, and nothing else would wake us
            return
        for worker in wait_for_any(self._core, self._workers, timeout):
            for message in worker.messages():
                self._hear(worker, message)

    def _deal(self) -> None:
        """Give each free worker a layer; start one while all are busy and there are processors."""
        while self._left:
            worker = next((each for each in self._workers if each.layer is None), None)
            if worker is None:
                if len(self._workers) >= available_cores():
                    return
                worker = self._start()
            layer = worker.layer = self._left.popleft()
            layer.progress = self._core.progress(layer.digest, total=layer.job.descriptor.size, unit="bytes")
            worker.send((layer.digest, layer.log))

    def _start(self) -> _Worker:
        core = self._core
        staging = Staging(core.staging.path, tag=f"w{len(self._workers)}")
        shared = (self._jobs, self._open_source, staging, most_inline(core), core.features)
        worker = _Worker(lambda channel: serve(channel, *shared), staging.path)
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
        return self._puts.answered or bool(self._storing and self._storing[0][1].done)

    def _take_answers(self) -> None:
        for (layer, worker, size), stored in self._puts.taken():
            layer.file_stored(stored, size)
            worker.taken += staged_cost(size)
            self._finish(layer)
        for worker in self._workers:
            if worker.taken >= TAKEN_LOT:
                worker.send(worker.taken)
                worker.taken = 0
        while self._storing and self._storing[0][1].done:
            layer, stream = self._storing.popleft()
            layer.id = stream.result()["id"]
            layer.progress.finish()
            self._unnamed.append({"name": layer_stream(layer.digest), "id": layer.id, "if_exists": "replace"})

    def _finish(self, layer: _Layer) -> None:
        """Have a layer's stream stored, if all of its files are."""
        unpacked = layer.unpacked
        if unpacked is None or len(layer.ids) < unpacked.files:
            return
        if layer.job.diff_id is None:
            stream = self._core.stream_put(BLOB, chunks=[0], object_refs=layer.ids)
        else:
            stream = put_layer(self._core, unpacked, layer.ids)
        self._storing.append((layer, stream))
