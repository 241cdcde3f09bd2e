"""Reading splitstreams: references, names and chunks, of which each is checked before it is handed out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from typing import Self

from composefs.digest import LOG2_BLOCK_SIZE, Algorithm
from composefs.errors import CorruptError, FormatError
from composefs.paths import shown
from composefs.splitstream.frame import open_frame
from composefs.splitstream.layout import (
    HEADER,
    INFO,
    MAGIC,
    MAX_CHUNKS,
    MAX_INLINE,
    MAX_NAMED_REFS,
    MAX_NAMED_REFS_SIZE,
    MAX_REFERENCES,
    MAX_SIZE,
    NUMBER,
    PIECE,
)
from composefs.systemerrors import from_os_error

__all__ = ["Reader"]

_BLOCK = 1024
"""How many references are read at once."""


class Reader:
    """A splitstream in an open file or in memory; nothing in it is believed before it is checked.

    ``size`` is that of the reassembled stream.  A descriptor that is given belongs to the reader, which closes it; use
    it as a context manager.  Raises FormatError, with the offset in the file.
    """

    def __init__(
        self, source: int | bytes | bytearray | memoryview, algorithm: Algorithm, label: str | None = None
    ) -> None:
        """``label`` is what to call the stream in errors that are met within ``with``."""
        self._algorithm = algorithm
        self._label = label
        self._source = source
        try:
            self._length = os.fstat(source).st_size if isinstance(source, int) else len(source)
            self._read_header()
        except BaseException as error:
            self._tell(error)
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._tell(error)
        self.close()

    def _tell(self, error: BaseException | None) -> None:
        """Put the stream's label into an error about it that says only what is wrong."""
        if self._label is not None and isinstance(error, FormatError | CorruptError) and error.subject is None:
            error.message = f"{self._label}: {error.message}"
            error.subject = self._label

    def close(self) -> None:
        """Close the descriptor."""
        if isinstance(self._source, int):
            os.close(self._source)
            self._source = b""

    def _read(self, start: int, length: int) -> bytes:
        """Read exactly; what is asked for lies in the file, by the checks of ranges."""
        if not isinstance(self._source, int):
            return bytes(self._source[start : start + length])
        parts = []
        try:
            while length and (data := os.pread(self._source, length, start)):
                parts.append(data)
                start += len(data)
                length -= len(data)
        except OSError as error:
            raise from_os_error(error, f"reading {self._label or 'a splitstream'}") from error
        if length:
            raise FormatError("the splitstream became shorter while it was read", offset=start)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_header(self) -> None:
        if self._length < HEADER.size:
            raise FormatError("too short for a splitstream", offset=self._length)
        magic, version, flags, number, log2, start, end = HEADER.unpack(self._read(0, HEADER.size))
        if magic != MAGIC:
            raise FormatError("not a splitstream", offset=0)
        if version or flags:
            raise FormatError(f"unknown splitstream version {version}, flags {flags}", offset=11)
        if (number, log2) != (self._algorithm.number, LOG2_BLOCK_SIZE):
            raise FormatError(
                f"the splitstream is for hash algorithm {number}, block size 2^{log2}; "
                f"the repository has {self._algorithm.meta_name}",
                offset=14,
            )
        self._check_range("info", start, end, 16)
        if end - start < INFO.size:
            raise FormatError("the splitstream's info is too short", offset=start)
        info = INFO.unpack(self._read(start, INFO.size))
        self.content_type: int
        self.size: int
        *bounds, self.content_type, self.size = info
        if self.size > MAX_SIZE:
            raise FormatError("the size of the reassembled stream is not plausible", offset=start + 72)
        for index, name in enumerate(("stream_refs", "object_refs", "stream", "named_refs")):
            self._check_range(name, bounds[2 * index], bounds[2 * index + 1], start + 16 * index)
        self._stream_refs = self._check_references("stream", bounds[0], bounds[1])
        self._object_refs = self._check_references("object", bounds[2], bounds[3])
        self._block: tuple[int, list[str]] = (-1, [])
        self._stream = (bounds[4], bounds[5])
        self._names = (bounds[6], bounds[7])

    def _check_range(self, name: str, start: int, end: int, offset: int) -> None:
        if not start <= end <= self._length:
            raise FormatError(f"the splitstream's {name} is at {start} to {end} of {self._length} bytes", offset=offset)

    def _check_references(self, kind: str, start: int, end: int) -> tuple[int, int]:
        """Return where the references begin, and how many there are."""
        count, rest = divmod(end - start, self._algorithm.size)
        if rest:
            raise FormatError(f"the {kind} references are no whole number of digests", offset=start)
        if count > MAX_REFERENCES:
            raise FormatError(f"the splitstream has more than {MAX_REFERENCES} {kind} references", offset=start)
        return start, count

    def _references(self, where: tuple[int, int], first: int = 0, most: int = MAX_REFERENCES) -> list[str]:
        """Return ids of the references at ``where``, (offset, number of them): from ``first`` on, at most ``most``."""
        start, count = where
        size = self._algorithm.size
        text = self._read(start + first * size, min(most, count - first) * size).hex()
        return [text[position : position + 2 * size] for position in range(0, len(text), 2 * size)]

    def object_refs(self) -> Iterator[str]:
        """Yield the ids of the objects, in the order of their indexes; they are read a few at a time."""
        return chain.from_iterable(self.object_ref_blocks())

    def object_ref_blocks(self) -> Iterator[list[str]]:
        """Yield what :meth:`object_refs` does, some at a time."""
        for first in range(0, self._object_refs[1], _BLOCK):
            yield self._references(self._object_refs, first, _BLOCK)

    def object_ref(self, number: int) -> str:
        """Return the id of the object with an index, which :meth:`chunks` has checked.

        Most indexes come in rising order, so the ids around the last one are kept.
        """
        block, at = divmod(number, _BLOCK)
        if self._block[0] != block:
            self._block = block, self._references(self._object_refs, block * _BLOCK, _BLOCK)
        return self._block[1][at]

    @property
    def named_refs(self) -> list[tuple[str, str]]:
        """The named references, (name, id), in the order of their indexes; each call reads them anew."""
        ids = self._references(self._stream_refs)
        start = self._names[0]
        with open_frame(self._read, *self._names) as frame:
            records = frame.read(MAX_NAMED_REFS_SIZE + 1)
        if len(records) > MAX_NAMED_REFS_SIZE:
            raise FormatError("the named references are too long", offset=start)
        if records.count(b"\0") > MAX_NAMED_REFS:
            raise FormatError(f"the splitstream has more than {MAX_NAMED_REFS} named references", offset=start)
        if records and not records.endswith(b"\0"):
            raise FormatError("the last named reference has no end", offset=start)
        names: dict[str, int] = {}
        for record in records.split(b"\0")[:-1]:
            index, _, encoded = record.partition(b":")
            if not index.isdigit() or len(index) > 10 or int(index) >= len(ids):
                raise FormatError(f"the named reference '{shown(record[:200])}' has no valid index", offset=start)
            try:
                name = encoded.decode()
            except UnicodeDecodeError as error:
                raise FormatError(f"the named reference '{shown(record[:200])}' is not UTF-8", offset=start) from error
            if not name or name in names:
                raise FormatError(f"the named reference {name[:200]!r} is empty or comes twice", offset=start)
            names[name] = int(index)
        return sorted(((name, ids[index]) for name, index in names.items()), key=lambda ref: (names[ref[0]], ref[0]))

    def chunks(self) -> Iterator[tuple[int, bytes]]:
        """Yield the chunks: (i, b"") for object reference i, and (-n, bytes) for n inline bytes.

        An inline chunk longer than PIECE comes as several; neighbouring inline pieces are always one chunk.  When a
        stream has no external chunk its size is checked here, otherwise by who knows the sizes of the objects.
        """
        start = self._stream[0]
        count = self._object_refs[1]
        inline = chunks = last = 0
        external = False
        with open_frame(self._read, *self._stream) as frame:
            while number_bytes := frame.read(NUMBER.size):
                if len(number_bytes) < NUMBER.size:
                    raise FormatError("the stream ends inside a number", offset=start)
                (number,) = NUMBER.unpack(number_bytes)
                chunks += 1
                if chunks > MAX_CHUNKS:
                    raise FormatError(f"the stream has more than {MAX_CHUNKS} chunks", offset=start)
                if number >= 0:
                    if number >= count:
                        raise FormatError(f"a chunk names object reference {number} of {count}", offset=start)
                    external = True
                    yield number, b""
                else:
                    if last < 0:
                        raise FormatError("two inline chunks follow each other", offset=start)
                    inline -= number
                    if inline > self.size:
                        raise FormatError(f"the stream is longer than its size, {self.size}", offset=start)
                    if inline > MAX_INLINE:
                        raise FormatError(f"the stream has more than {MAX_INLINE} inline bytes", offset=start)
                    left = -number
                    while left:
                        data = frame.read(min(left, PIECE))
                        if not data:
                            raise FormatError("the stream ends inside an inline chunk", offset=start)
                        left -= len(data)
                        yield -len(data), data
                last = number
        if not external and inline != self.size:
            raise FormatError(f"the stream has {inline} bytes, its size says {self.size}", offset=start)
