"""Splitstreams: a stored file whose large pieces are objects of the repository.

Integers are little-endian; a range is two u64, the absolute offsets of its first byte and of the byte after its last.

    header   0    11  "SplitStream"
             11   1   version, 0
             12   2   flags, 0
             14   1   hash algorithm, 1 sha256 or 2 sha512
             15   1   log2 of the block size, 12
             16   16  range of info
    info     0    16  range of stream_refs: raw digests
             16   16  range of object_refs: raw digests, each once, in the order of their first use
             32   16  range of stream: zstd
             48   16  range of named_refs: zstd of records "INDEX:NAME" NUL, INDEX into stream_refs, sorted by name
             64   8   content type
             72   8   size of the reassembled stream

``stream`` is a sequence of chunks: a signed 64-bit number, where -n is followed by n bytes of the reassembled stream,
and i >= 0 stands for all of object_refs[i].  No two inline chunks follow each other.  Both zstd parts are one frame
each.  A longer info is allowed, and what we do not know of it ignored.  This is the format of composefs-rs 0.9.0
(crates/composefs/src/splitstream.rs), which writes header, info, stream_refs, object_refs, named_refs, stream in this
order; so do we, but readers go by the ranges.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from types import TracebackType
from typing import BinaryIO, Self

from composefs import zstdframe
from composefs.digest import LOG2_BLOCK_SIZE, Algorithm
from composefs.errors import CorruptError, FormatError, TooLargeError, from_os_error

__all__ = ["MAGIC", "MAX_NAMED_REFS", "MAX_REFERENCES", "PIECE", "Reader", "write", "write_bytes"]

MAGIC = b"SplitStream"
"""How every splitstream begins."""

_HEADER = struct.Struct("<11sBHBBQQ")
_INFO = struct.Struct("<10Q")
_NUMBER = struct.Struct("<q")

MAX_REFERENCES = 4_000_000
"""The most object references, and the most stream references, of a stream."""

MAX_NAMED_REFS = 100_000
"""The most names of references: they are compressed, so that those of a small file could fill the memory."""

PIECE = 1 << 18
"""The most inline bytes that a reader hands out, and a writer takes in, at once."""

_BLOCK = 1024
"""How many references are read at once."""

_MAX_SIZE = (1 << 63) - 1
_MAX_NAMED_REFS_SIZE = 64 << 20

_NO_NAMED_REFS = bytes.fromhex("28b52ffd2000010000")  # an empty frame, as composefs-rs writes it


def write(
    out: BinaryIO,
    algorithm: Algorithm,
    *,
    content_type: int,
    named_refs: Sequence[tuple[str, str]],
    object_refs: Sequence[str],
    chunks: Iterable[int],
    inline: BinaryIO,
    object_size: Callable[[str], int],
) -> int:
    """Write a splitstream to ``out``, which must be seekable, and return the size of the reassembled stream.

    ``named_refs`` are (name, id) in the order of their index; ``object_refs`` ids, each once.  ``chunks`` are numbers
    as above, where -n takes n bytes of ``inline``; neighbouring inline chunks are joined.  ``object_size`` tells the
    size of an object of the repository.  Raises FormatError when the parts do not fit together.
    """
    names = _index_names(named_refs)
    if len(object_refs) > MAX_REFERENCES:
        raise TooLargeError(f"a stream has at most {MAX_REFERENCES} references")
    if len(names) > MAX_NAMED_REFS:
        raise TooLargeError(f"a stream has at most {MAX_NAMED_REFS} named references")
    if len(set(object_refs)) != len(object_refs):
        raise FormatError("an object reference is listed twice")
    stream_ids = list(dict.fromkeys(object_id for _, object_id in named_refs))
    start = _HEADER.size + _INFO.size
    out.seek(start)
    ranges = []
    for part in (_raw(stream_ids, algorithm), _raw(object_refs, algorithm), _compress_names(names)):
        out.write(part)
        ranges.append((start, start + len(part)))
        start += len(part)
    size = _write_chunks(out, chunks, inline, object_refs, object_size)
    stream = (start, out.tell())
    stream_refs, objects, named = ranges
    out.seek(0)
    out.write(_HEADER.pack(MAGIC, 0, 0, algorithm.number, LOG2_BLOCK_SIZE, _HEADER.size, _HEADER.size + _INFO.size))
    out.write(_INFO.pack(*stream_refs, *objects, *stream, *named, content_type, size))
    return size


def write_bytes(
    algorithm: Algorithm,
    *,
    content_type: int,
    named_refs: Sequence[tuple[str, str]] = (),
    object_refs: Sequence[str] = (),
    chunks: Iterable[int] = (),
    inline: bytes = b"",
    object_size: Callable[[str], int] = lambda _id: 0,
) -> bytes:
    """Return a small splitstream as bytes; see :func:`write`."""
    out = io.BytesIO()
    write(
        out,
        algorithm,
        content_type=content_type,
        named_refs=named_refs,
        object_refs=object_refs,
        chunks=chunks,
        inline=io.BytesIO(inline),
        object_size=object_size,
    )
    return out.getvalue()


def _raw(ids: Sequence[str], algorithm: Algorithm) -> bytes:
    raw = bytes.fromhex("".join(ids))
    if len(raw) != len(ids) * algorithm.size:
        raise FormatError(f"a reference is no {algorithm} id")
    return raw


def _index_names(named_refs: Sequence[tuple[str, str]]) -> list[tuple[bytes, int]]:
    """Give each name the index that its id has in stream_refs; sorted by name."""
    indexes: dict[str, int] = {}
    names: dict[bytes, int] = {}
    for name, object_id in named_refs:
        try:
            encoded = name.encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"the named reference {name!r} is not UTF-8") from error
        if not encoded or b"\0" in encoded or encoded in names:
            raise FormatError(f"the named reference {name!r} is empty, has a NUL, or comes twice")
        names[encoded] = indexes.setdefault(object_id, len(indexes))
    return sorted(names.items())


def _compress_names(names: list[tuple[bytes, int]]) -> bytes:
    if not names:
        return _NO_NAMED_REFS
    records = b"".join([b"%d:%s\0" % (index, name) for name, index in names])
    if len(records) > _MAX_NAMED_REFS_SIZE:
        raise TooLargeError("the names of the stream's references are too long")
    compressor = zstdframe.compressor()
    return compressor.compress(records) + compressor.flush()


def _write_chunks(
    out: BinaryIO,
    chunks: Iterable[int],
    inline: BinaryIO,
    object_refs: Sequence[str],
    object_size: Callable[[str], int],
) -> int:
    compressor = zstdframe.compressor()
    size = 0
    pending = 0
    buffer: list[bytes] = []
    buffered = 0

    def emit(data: bytes) -> None:
        # Chunks are a few bytes to a few kilobytes; the compressor's call costs more than joining them.
        nonlocal buffered
        buffer.append(data)
        buffered += len(data)
        if buffered >= PIECE:
            out.write(compressor.compress(b"".join(buffer)))
            buffer.clear()
            buffered = 0

    def emit_inline() -> None:
        nonlocal pending
        emit(_NUMBER.pack(-pending))
        while pending:
            data = inline.read(min(pending, PIECE))
            if not data:
                raise FormatError(f"the chunks ask for {pending} inline bytes more than there are")
            emit(data)
            pending -= len(data)

    for number in chunks:
        if number < 0:
            pending -= number
            size -= number
            if size > _MAX_SIZE:
                raise TooLargeError("the reassembled stream is larger than 2^63 bytes")
            continue
        if number >= len(object_refs):
            raise FormatError(f"a chunk names object reference {number} of {len(object_refs)}")
        if pending:
            emit_inline()
        emit(_NUMBER.pack(number))
        size += object_size(object_refs[number])
    if pending:
        emit_inline()
    if inline.read(1):
        raise FormatError("there are more inline bytes than the chunks ask for")
    out.write(compressor.compress(b"".join(buffer)))
    out.write(compressor.flush())
    return size


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

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(value)
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
            raise from_os_error(error, "reading a splitstream") from error
        if length:
            raise FormatError("the splitstream became shorter while it was read", offset=start)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_header(self) -> None:
        if self._length < _HEADER.size:
            raise FormatError("too short for a splitstream", offset=self._length)
        magic, version, flags, number, log2, start, end = _HEADER.unpack(self._read(0, _HEADER.size))
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
        if end - start < _INFO.size:
            raise FormatError("the splitstream's info is too short", offset=start)
        info = _INFO.unpack(self._read(start, _INFO.size))
        self.content_type: int
        self.size: int
        *bounds, self.content_type, self.size = info
        if self.size > _MAX_SIZE:
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

    def _references(self, where: tuple[int, int]) -> list[str]:
        start, count = where
        size = self._algorithm.hex_size
        text = self._read(start, count * self._algorithm.size).hex()
        return [text[position : position + size] for position in range(0, len(text), size)]

    def object_refs(self) -> Iterator[str]:
        """Yield the ids of the objects, in the order of their indexes; they are read a few at a time."""
        return chain.from_iterable(self.object_ref_blocks())

    def object_ref_blocks(self) -> Iterator[list[str]]:
        """Yield what :meth:`object_refs` does, some at a time."""
        start, count = self._object_refs
        for first in range(0, count, _BLOCK):
            yield self._references((start + first * self._algorithm.size, min(_BLOCK, count - first)))

    def object_ref(self, number: int) -> str:
        """Return the id of the object with an index, which :meth:`chunks` has checked.

        Indexes come in rising order, but for those that come again: those around the last one are kept.
        """
        block, at = divmod(number, _BLOCK)
        if self._block[0] != block:
            start, count = self._object_refs
            first = block * _BLOCK
            self._block = block, self._references((start + first * self._algorithm.size, min(_BLOCK, count - first)))
        return self._block[1][at]

    @property
    def named_refs(self) -> list[tuple[str, str]]:
        """The named references, (name, id), in the order of their indexes; each call reads them anew."""
        ids = self._references(self._stream_refs)
        start = self._names[0]
        with zstdframe.open_frame(self._read, *self._names) as frame:
            records = frame.read(_MAX_NAMED_REFS_SIZE + 1)
        if len(records) > _MAX_NAMED_REFS_SIZE:
            raise FormatError("the named references are too long", offset=start)
        if records.count(b"\0") > MAX_NAMED_REFS:
            raise FormatError(f"the splitstream has more than {MAX_NAMED_REFS} named references", offset=start)
        if records and not records.endswith(b"\0"):
            raise FormatError("the last named reference has no end", offset=start)
        names: dict[str, int] = {}
        for record in records.split(b"\0")[:-1]:
            index, colon, encoded = record.partition(b":")
            if not colon or not index.isdigit() or len(index) > 10 or int(index) >= len(ids):
                raise FormatError(f"the named reference {record[:200]!r} has no valid index", offset=start)
            try:
                name = encoded.decode()
            except UnicodeDecodeError as error:
                raise FormatError(f"the named reference {record[:200]!r} is not UTF-8", offset=start) from error
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
        inline = 0
        external = False
        after_inline = False
        with zstdframe.open_frame(self._read, *self._stream) as frame:
            while number_bytes := frame.read(_NUMBER.size):
                if len(number_bytes) < _NUMBER.size:
                    raise FormatError("the stream ends inside a number", offset=start)
                (number,) = _NUMBER.unpack(number_bytes)
                if number >= 0:
                    if number >= count:
                        raise FormatError(f"a chunk names object reference {number} of {count}", offset=start)
                    external = True
                    after_inline = False
                    yield number, b""
                    continue
                if after_inline:
                    raise FormatError("two inline chunks follow each other", offset=start)
                after_inline = True
                inline -= number
                if inline > self.size:
                    raise FormatError(f"the stream is longer than its size, {self.size}", offset=start)
                left = -number
                while left:
                    data = frame.read(min(left, PIECE))
                    if not data:
                        raise FormatError("the stream ends inside an inline chunk", offset=start)
                    left -= len(data)
                    yield -len(data), data
        if not external and inline != self.size:
            raise FormatError(f"the stream has {inline} bytes, its size says {self.size}", offset=start)
