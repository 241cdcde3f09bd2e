"""What happens to a layer in a worker process: fetched, checked, inflated, taken apart, staged.

No content crosses between processes.  Up go, for each layer, the names and sizes of staged files as they are complete
and how much there is of its :mod:`~composefs_oci.layers.entry_log`, and at its end what
:mod:`composefs_oci.layers.unpacking` made of it; down come layers to fetch, each with the name of its log, and how many
staged bytes the core has taken, for a worker waits while too much of its own lies in staging.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs_ext.errors import NotFoundError, from_exception, to_wire
from composefs_ext.packs import Packs
from composefs_oci.layers.decompress import open_tar
from composefs_oci.layers.entry_log import EntryLog
from composefs_oci.layers.unpacking import Unpacked, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from composefs_ext.staging import Staging
    from composefs_ext.workers import Channel
    from composefs_oci.formats.descriptors import Descriptor
    from composefs_oci.sources.source import Blob, Opener, Source

__all__ = ["DONE", "FAILED", "FILES", "TELL", "Job", "serve", "staged_cost"]

FILES, DONE, FAILED, TELL = range(4)
"""First elements of what goes up: FILES, [(name, size, offset or None)], compressed bytes read since, size of the log;
DONE, the fields of an Unpacked; FAILED, the error as on the wire; TELL, a line for the user."""

STAGED_BYTES = 64 << 20
"""Staged bytes that one worker may have without hearing that they were taken."""

_FILE_COST = 4096
_ROWS = 128
_ROWS_BYTES = 4 << 20
_REPORT = 1 << 20
_SHOWN = 300


class Job(NamedTuple):
    """A layer to fetch: its descriptor, and the diff id of an archive, or None for a blob to be kept as it is."""

    descriptor: Descriptor
    diff_id: str | None


def serve(
    channel: Channel,
    jobs: Mapping[str, Job],
    open_source: Opener,
    staging: Staging,
    max_inline: int,
    features: Collection[str],
) -> None:
    """Fetch the layers whose keys come down, until the channel is closed.

    ``open_source`` gets where to send lines for the user; it is called when there is something to do.  ``features`` are
    those that the core agreed to.
    """
    worker = _Worker(channel, staging, max_inline, features)
    source: Source | None = None
    while (message := channel.wait()) is not None:
        if isinstance(message, int):
            worker.taken(message)
            continue
        key, log = message
        try:
            if source is None:
                source = open_source(lambda text: channel.send((TELL, text)))
            with source.open_blob(jobs[key].descriptor) as blob:
                layer = worker.fetch(blob, jobs[key], log)
        except EOFError:  # nobody is left to fetch for
            return
        except Exception as error:  # noqa: BLE001  whatever it is, the user hears of it as one line
            if isinstance(error, NotFoundError) and (urls := jobs[key].descriptor.urls):
                error.hint = f"the image leaves it to be had from {urls[0][:_SHOWN]!r}, where it is not looked for"
            channel.send((FAILED, to_wire(from_exception(error, staging.path))))
        else:
            channel.send((DONE, tuple(layer)))


class _Counted:
    """A blob that tells how much of it was read."""

    def __init__(self, blob: Blob, passed: Callable[[int], None]) -> None:
        self._blob = blob
        self._passed = passed
        self.where = blob.where

    def read(self, size: int = _REPORT) -> bytes:
        data = self._blob.read(size)
        self._passed(len(data))
        return data


def staged_cost(size: int) -> int:
    """Return what a staged file counts for: its bytes, and those that a file takes even without any."""
    return size + _FILE_COST


class _Worker:
    """What a worker has not told yet, and what it has staged that was not taken yet."""

    def __init__(self, channel: Channel, staging: Staging, max_inline: int, features: Collection[str]) -> None:
        self._channel = channel
        self._staging = staging
        self._packs = Packs(staging, features)
        self._max_inline = max_inline
        self._rows: list[tuple[str, int, int | None]] = []
        self._row_bytes = 0
        self._read = 0
        self._staged = 0
        self._log: EntryLog | None = None

    def fetch(self, blob: Blob, job: Job, log: str) -> Unpacked:
        """Read a blob to its end; give its files away, and log its entries under this name."""
        counted = _Counted(blob, self._count)
        if job.diff_id is None:
            layer = self._keep(counted, job.descriptor)
            self.report()
            return layer
        archive = open_tar(counted)
        self._log = EntryLog(self._staging.path_of(log))
        try:
            layer = unpack(
                archive,
                self._staging,
                self._take,
                packs=self._packs,
                diff_id=job.diff_id,
                max_inline=self._max_inline,
                note=self._log.add,
            )
            self._log.flush()
            self.report()
            return layer
        finally:
            self._log.close()
            self._log = None

    def _keep(self, blob: _Counted, descriptor: Descriptor) -> Unpacked:
        """Stage a blob as it is: one object, whatever its size."""
        name = self._staging.new_name("blob")
        with self._staging.create(name) as file:
            while data := blob.read():
                file.write(data)
        self._take(name, descriptor.size)
        return Unpacked("", 0, [0], [], 1, descriptor.size)

    def _count(self, size: int) -> None:
        self._read += size
        if self._read >= _REPORT:
            self.report()

    def _take(self, name: str, size: int, offset: int | None = None) -> None:
        self._rows.append((name, size, offset))
        self._row_bytes += size
        self._staged += staged_cost(size)
        if len(self._rows) >= _ROWS or self._row_bytes >= _ROWS_BYTES:
            self.report()
        while self._staged > STAGED_BYTES:
            self.report()
            taken = self._channel.wait()
            if taken is None:
                raise EOFError
            self.taken(taken)

    def taken(self, cost: int) -> None:
        """Hear that files of this cost were taken."""
        self._staged -= cost

    def report(self) -> None:
        """Tell what is new."""
        self._packs.flush()
        logged = self._log.size if self._log else 0
        if self._rows or self._read or logged:
            self._channel.send((FILES, self._rows, self._read, logged))
            self._rows, self._row_bytes, self._read = [], 0, 0
