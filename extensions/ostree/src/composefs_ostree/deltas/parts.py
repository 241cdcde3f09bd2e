"""The parts of a delta in a worker process: fetched, unpacked as they come, and carried out.

A worker that gets the number of a part answers with a row for each object of it; files it fetches as in any pull.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import islice

from composefs_ext.errors import (
    CorruptError,
    MissingObjectError,
    TooLargeError,
    UnsupportedError,
    from_exception,
    to_wire,
)
from composefs_ostree.deltas.payload import Unpacking, most_unpacked, split
from composefs_ostree.deltas.program import Program
from composefs_ostree.fetching.blame import DAMAGED_DELTA, blamed
from composefs_ostree.fetching.transport import Fetch, descriptors_of, timeout_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from composefs_ostree.deltas.old_files import OldFiles
    from composefs_ostree.deltas.superblock import Part
    from composefs_ostree.fetching.files import Failure, Files
    from composefs_ostree.fetching.stage import Row, SmallContents
    from composefs_ostree.fetching.transport import Transport

__all__ = ["PartFetch", "PartFiles"]

_ROWS = 32


class PartFetch(Fetch):
    """The fetch of a part's file, which is hashed and unpacked as it comes."""

    collects = False

    __slots__ = ("_hash", "_unpacking", "_unsupported", "part")

    def __init__(self, part: Part) -> None:
        super().__init__(part.path, part.size)
        self.part = part
        self._unpacking = Unpacking(most_unpacked(part.plain))
        self._hash = sha256()
        self._unsupported: UnsupportedError | None = None

    def begin(self) -> None:
        """Start again, without what an earlier attempt has brought."""
        super().begin()
        self._unpacking.discard()
        self._unpacking = Unpacking(most_unpacked(self.part.plain))
        self._hash = sha256()
        self._unsupported = None

    def _take(self, data: bytes) -> None:
        if self._received > self.limit:
            raise CorruptError(f"it is longer than the {self.limit} bytes that its superblock tells")
        self._hash.update(data)
        try:
            if self._unsupported is None:
                self._unpacking.feed(data)
        except UnsupportedError as error:
            self._unsupported = error  # unless it is a damaged part, which the checksum will tell

    def finish(self) -> memoryview:
        """Return the payload; raise what went wrong, CorruptError above all."""
        if self.error is not None:
            raise self.error
        if self._received != self.part.size or self._hash.digest() != self.part.checksum:
            raise CorruptError("its size or checksum is not what its superblock tells")
        if self._unsupported is not None:
            raise self._unsupported
        return self._unpacking.finish()

    def discard(self) -> None:
        """Give up what was kept."""
        self._unpacking.discard()


class PartFiles:
    """The parts of one delta, one at a time, and the files that are fetched beside them.

    It is what :class:`composefs_ostree.fetching.files.Files` asks for, with ``start_part`` besides.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        transport: Transport,
        held: OldFiles,
        small: SmallContents,
        files: Files,
    ) -> None:
        """``held`` is where files of the old commit come from, ``files`` those of the repository."""
        self._parts = parts
        self._transport = transport
        self._held = held
        self._small = small
        self._files = files
        self._current: Part | None = None  # that was given last: on its way, or making rows; or neither, at its end
        self._staged = ""
        self._coming: PartFetch | None = None
        self._rows: Iterator[Row] | None = None

    def start(self, file_id: bytes, staged: str) -> None:
        """Queue a file of the repository."""
        self._files.start(file_id, staged)

    def start_part(self, number: int, staged: str) -> int:
        """Begin a part, behind the last row of the one before; return how many rows it has.

        Its files are staged under names that begin with ``staged``.
        """
        part = self._current = self._parts[number]
        self._staged = staged
        self._coming = PartFetch(part)
        if part.inline is None:
            self._transport.start(self._coming)
        return part.object_count

    def where(self, file_id: bytes) -> str:
        """Return where a file would be in the repository."""
        return self._files.where(file_id)

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Return those of both transports."""
        return descriptors_of((self._transport, self._files))

    def timeout(self) -> float | None:
        """Return 0 while there is something to do."""
        if self._rows is not None or (self._coming is not None and self._coming.part.inline is not None):
            return 0.0
        return timeout_of((self._transport, self._files))

    def step(self) -> Sequence[Row | Failure]:
        """Go on with everything; return the rows of some objects."""
        return [*self._step(), *self._files.step()]

    def _step(self) -> list[Row | Failure]:
        """Go on with the part that is under way."""
        try:
            if self._coming is not None:
                self._fetch(self._coming)
            if self._rows is None:
                return []
            rows: list[Row | Failure] = list(islice(self._rows, _ROWS))
        except Exception as error:  # noqa: BLE001  the coordinator reports whatever goes wrong here
            return [self._failure(error)]
        if len(rows) < _ROWS:
            self._rows = None
        return rows

    def _fetch(self, fetch: PartFetch) -> None:
        """Begin with the program of a part when it is there."""
        if fetch.part.inline is not None:
            fetch.begin()
            fetch.take(fetch.part.inline)
        elif not self._transport.step():
            return
        self._coming = None
        try:
            payload = fetch.finish()
        except BaseException:
            fetch.discard()
            raise
        self._rows = Program(fetch.part, split(payload), self._held.read, self._staged, self._small).run()

    def _failure(self, error: Exception) -> Failure:
        """Return what to send up: the part's first object and the error, or that a file of the old commit is bad."""
        self._rows = None
        assert self._current is not None
        if isinstance(error, CorruptError):
            try:
                self._held.check()
            except MissingObjectError as damaged:
                error = damaged
        where = self._transport.where(self._current.path)
        told = from_exception(error)
        if isinstance(told, MissingObjectError | TooLargeError):
            return self._current.object(0)[1], to_wire(type(told)(f"{where}: {told.message}", hint=told.hint))
        return self._current.object(0)[1], to_wire(blamed(where, told, DAMAGED_DELTA))
