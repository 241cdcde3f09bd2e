"""One zstd frame as part of a file: made as composefs-rs makes it, and read with bounds.

RFC 8878 is the format.  A frame is a magic number, a descriptor, a window size unless the frame is a single segment, an
optional content size, blocks with headers of three bytes, and an optional checksum.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from composefs.errors import FormatError

if TYPE_CHECKING:
    from zstandard import ZstdCompressionObj, ZstdDecompressionReader

__all__ = ["compressor", "open_frame"]

_MAGIC = b"\x28\xb5\x2f\xfd"
_BLOCK_HEADER_SIZE = 3
_MIN_SIZE = 6
_MAX_HEADER_SIZE = 18
_MAX_WINDOW = 8 << 20  # composefs-rs uses 2 MiB; section 3.1.1.1.2 recommends that decoders support 8 MiB

_NO_MEMORY = "Allocation error"
"""What libzstd says of a lack of memory, which is nothing that is wrong with the frame."""

_READ_SIZE = 1 << 16
_BUFFER_SIZE = 1 << 18

Read = Callable[[int, int], bytes]
"""Reads exactly so many bytes (second) of a file from an offset (first)."""


def compressor() -> ZstdCompressionObj:
    """Return an object that makes one frame, without content size and checksum, with a window of 2 MiB."""
    import zstandard

    # A compression object is not told the size, so the frame has none.  Level 3 means a window of 2 MiB then.
    return zstandard.ZstdCompressor(level=3, write_content_size=False, write_checksum=False).compressobj()


def open_frame(read: Read, start: int, end: int) -> BinaryIO:
    """Return the content of the frame that fills a range of a file, to be read with bounded memory.

    Raises FormatError, with the offset: here for a range that is not exactly one frame, later for damaged blocks.
    """
    import zstandard

    _check_frame(read, start, end)
    source = io.BufferedReader(_Part(read, start, end), _READ_SIZE)
    reader = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).stream_reader(source)
    return io.BufferedReader(_Frame(reader, start), _BUFFER_SIZE)


class _Part(io.RawIOBase):
    """A range of a file as a file."""

    def __init__(self, read: Read, start: int, end: int) -> None:
        self._read = read
        self._position = start
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(self._position, min(len(buffer), self._end - self._position))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Frame(io.RawIOBase):
    """The content of a zstd frame, whose errors are FormatErrors."""

    def __init__(self, reader: ZstdDecompressionReader, start: int) -> None:
        self._reader = reader
        self._start = start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zstandard

        try:
            return self._reader.readinto(buffer)
        except zstandard.ZstdError as error:
            if _NO_MEMORY in str(error):
                raise MemoryError from error
            raise FormatError(f"zstd: {error}", offset=self._start) from error


def _check_frame(read: Read, start: int, end: int) -> None:
    """Check that a range is one complete zstd frame, from the headers of its blocks (section 3.1.1).

    The decompressor's own reader ends silently where its input does, and ignores what follows the frame.
    """
    head = read(start, min(_MAX_HEADER_SIZE, end - start))
    if len(head) < _MIN_SIZE or head[:4] != _MAGIC:
        raise FormatError("no zstd frame", offset=start)
    descriptor = head[4]
    single_segment = descriptor >> 5 & 1
    if descriptor & 3:
        raise FormatError("the zstd frame needs a dictionary", offset=start)
    content_size_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    position = start + 5 + (1 - single_segment) + content_size_bytes
    last = False
    while not last:
        if end - position < _BLOCK_HEADER_SIZE:
            raise FormatError("the zstd frame is cut off", offset=position)
        block = int.from_bytes(read(position, _BLOCK_HEADER_SIZE), "little")
        last = bool(block & 1)
        run_length_encoded = block >> 1 & 3 == 1
        if not block:  # nobody writes it, and a hole in a file is any number of these
            raise FormatError("the zstd frame has an empty block before its last", offset=position)
        position += _BLOCK_HEADER_SIZE + (1 if run_length_encoded else block >> 3)
    position += 4 if descriptor & 4 else 0  # a checksum
    if position != end:
        raise FormatError("the zstd frame does not end where its range does", offset=min(position, end))
