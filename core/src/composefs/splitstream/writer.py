"""Splitstreams written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

from composefs.digest import LOG2_BLOCK_SIZE, Algorithm
from composefs.errors import FormatError, TooLargeError
from composefs.splitstream.frame import compressor as new_compressor
from composefs.splitstream.layout import (
    HEADER,
    INFO,
    MAGIC,
    MAX_NAMED_REFS,
    MAX_NAMED_REFS_SIZE,
    MAX_REFERENCES,
    MAX_SIZE,
    NUMBER,
    PIECE,
)

__all__ = ["write"]

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
    start = HEADER.size + INFO.size
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
    out.write(HEADER.pack(MAGIC, 0, 0, algorithm.number, LOG2_BLOCK_SIZE, HEADER.size, HEADER.size + INFO.size))
    out.write(INFO.pack(*stream_refs, *objects, *stream, *named, content_type, size))
    return size


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
    if len(records) > MAX_NAMED_REFS_SIZE:
        raise TooLargeError("the names of the stream's references are too long")
    compressor = new_compressor()
    return compressor.compress(records) + compressor.flush()


def _write_chunks(
    out: BinaryIO,
    chunks: Iterable[int],
    inline: BinaryIO,
    object_refs: Sequence[str],
    object_size: Callable[[str], int],
) -> int:
    compressor = new_compressor()
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
        emit(NUMBER.pack(-pending))
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
            if size > MAX_SIZE:
                raise TooLargeError("the reassembled stream is larger than 2^63 bytes")
            continue
        if number >= len(object_refs):
            raise FormatError(f"a chunk names object reference {number} of {len(object_refs)}")
        if pending:
            emit_inline()
        emit(NUMBER.pack(number))
        size += object_size(object_refs[number])
    if pending:
        emit_inline()
    if inline.read(1):
        raise FormatError("there are more inline bytes than the chunks ask for")
    out.write(compressor.compress(b"".join(buffer)))
    out.write(compressor.flush())
    return size
