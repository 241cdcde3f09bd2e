"""Writing splitstreams: from chunks, inline bytes, and references to objects and other streams."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import BinaryIO

from composefs.digest import LOG2_BLOCK_SIZE, Algorithm
from composefs.errors import FormatError, TooLargeError
from composefs.splitstream.frame import compressor as new_compressor
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
from composefs.tuples import NamedTuple

__all__ = ["Parts", "write"]

_NO_NAMED_REFS = bytes.fromhex("28b52ffd2000010000")  # an empty frame, as composefs-rs writes it


class Parts(NamedTuple):
    """What a splitstream is made of.

    ``content_type`` is a number below 2^64.  ``chunks`` are numbers as in the stream, where -n takes the next n bytes
    of ``inline``, and i stands for the object ``object_refs[i]``; neighbouring inline chunks are joined.
    ``object_refs`` are ids, each once, ``named_refs`` (name, id) in the order of their index.
    """

    content_type: int
    inline: BinaryIO | bytes = b""
    chunks: Sequence[int] = ()
    object_refs: Sequence[str] = ()
    named_refs: Sequence[tuple[str, str]] = ()


def write(out: BinaryIO, algorithm: Algorithm, parts: Parts, sizes: Sequence[int]) -> int:
    """Write a splitstream to ``out``, which must be seekable, and return the size of the reassembled stream.

    ``sizes`` are the bytes of each of the objects that ``object_refs`` names.  Raises FormatError when the parts do
    not fit together, and TooLargeError for more than the format's readers take.
    """
    names = _index_names(parts.named_refs)
    if len(parts.object_refs) > MAX_REFERENCES:
        raise TooLargeError(f"a stream has at most {MAX_REFERENCES} references")
    if len(names) > MAX_NAMED_REFS:
        raise TooLargeError(f"a stream has at most {MAX_NAMED_REFS} named references")
    if len(set(parts.object_refs)) != len(parts.object_refs):
        twice = next(one for one, other in pairwise(sorted(parts.object_refs)) if one == other)
        raise FormatError(f"the object reference {twice} is listed twice")
    size = _reassembled_size(parts.chunks, sizes)
    stream_ids = list(dict.fromkeys(object_id for _, object_id in parts.named_refs))
    start = HEADER.size + INFO.size
    out.seek(start)
    ranges = []
    for part in (_raw(stream_ids, algorithm), _raw(parts.object_refs, algorithm), _compress_names(names)):
        out.write(part)
        ranges.append((start, start + len(part)))
        start += len(part)
    inline = io.BytesIO(parts.inline) if isinstance(parts.inline, bytes) else parts.inline
    _compress(out, _encoded(parts.chunks, inline))
    stream = (start, out.tell())
    stream_refs, objects, named = ranges
    out.seek(0)
    out.write(HEADER.pack(MAGIC, 0, 0, algorithm.number, LOG2_BLOCK_SIZE, HEADER.size, HEADER.size + INFO.size))
    out.write(INFO.pack(*stream_refs, *objects, *stream, *named, parts.content_type, size))
    return size


def _reassembled_size(chunks: Iterable[int], sizes: Sequence[int]) -> int:
    external = inline = 0
    count = len(sizes)
    written = 0
    last = 0
    for number in chunks:
        written += number >= 0 or last >= 0  # neighbouring inline chunks become one
        last = number
        if number < 0:
            inline -= number
        elif number < count:
            external += sizes[number]
        else:
            raise FormatError(f"a chunk names object reference {number} of {count}")
    if written > MAX_CHUNKS:
        raise TooLargeError(f"a stream has at most {MAX_CHUNKS} chunks")
    if inline > MAX_INLINE:
        raise TooLargeError(f"a stream has at most {MAX_INLINE} inline bytes")
    if external + inline > MAX_SIZE:
        raise TooLargeError("the reassembled stream is larger than 2^63 bytes")
    return external + inline


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


def _encoded(chunks: Iterable[int], inline: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a stream of chunks, each external chunk and each piece of an inline one by itself."""
    pack = NUMBER.pack
    pending = 0
    for number in chunks:
        if number < 0:
            pending -= number
            continue
        if pending:
            yield from _inline_chunk(pending, inline)
            pending = 0
        yield pack(number)
    if pending:
        yield from _inline_chunk(pending, inline)
    if inline.read(1):
        raise FormatError("there are more inline bytes than the chunks ask for")


def _inline_chunk(size: int, inline: BinaryIO) -> Iterator[bytes]:
    yield NUMBER.pack(-size)
    while size:
        data = inline.read(min(size, PIECE))
        if not data:
            raise FormatError(f"the chunks ask for {size} inline bytes more than there are")
        yield data
        size -= len(data)


def _compress(out: BinaryIO, pieces: Iterable[bytes]) -> None:
    """Write one frame of all pieces, which have a few bytes to a few kilobytes: joining them costs less than a call."""
    compressor = new_compressor()
    joined: list[bytes] = []
    size = 0
    for piece in pieces:
        joined.append(piece)
        size += len(piece)
        if size >= PIECE:
            out.write(compressor.compress(b"".join(joined)))
            joined.clear()
            size = 0
    out.write(compressor.compress(b"".join(joined)))
    out.write(compressor.flush())
