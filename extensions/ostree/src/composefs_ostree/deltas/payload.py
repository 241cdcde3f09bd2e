"""The payload of a delta's part: unpacked within bounds, and cut into its four members.

A part's file is a byte that tells the compression (0: none, ``x``: xz) and the payload
``(a(uuu)aa(ayay)ayay)``: modes (uid, gid and mode, big-endian), sets of extended attributes, the blob that the
operations take bytes from, and the operations.

The operations stand behind the blob, so that the whole must be there before the first is carried out: in a mapped file
without a name, if it has more than ``MOST_IN_MEMORY``.  In memory it would be there beside the decoder's dictionary,
which for the parts of 32 MiB that ostree makes is as large.

Source: ostree-repo-static-delta-private.h of libostree.
"""

from __future__ import annotations

import lzma
import mmap
import os
import tempfile
from typing import NamedTuple

from composefs_ext.errors import CorruptError, FormatError, UnsupportedError
from composefs_ostree.fetching.stage import write_all
from composefs_ostree.formats import gvariant

__all__ = ["MOST_IN_MEMORY", "Members", "Unpacking", "most_unpacked", "split"]

MOST_IN_MEMORY = 1 << 20
MOST_XZ_MEMORY = 128 << 20
"""Bytes that the decoder may take; the highest preset of xz needs 65 MiB."""

_SLACK = 16 << 20
_PIECE = 256 << 10
_MODE = 12
_MAX_TABLE = 64 << 20
_MAX_ENTRIES = 1_000_000


def most_unpacked(plain: int) -> int:
    """Return the most bytes that the payload of a part can have whose objects have ``plain`` bytes.

    A patch without any common byte is little longer than the content that it makes; the slack is for the tables.
    """
    return 2 * plain + _SLACK


class Unpacking:
    """A part's file, fed in pieces as it comes; raises CorruptError or UnsupportedError as early as it can."""

    def __init__(self, limit: int) -> None:
        """``limit`` bounds the payload in bytes; a large one goes into the working directory, which is staging."""
        self._limit = limit
        self._decoder: lzma.LZMADecompressor | None = None
        self._kind: int | None = None
        self._memory = bytearray()
        self._fd: int | None = None
        self._size = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the file."""
        if not data:
            return
        if self._kind is None:
            self._begin(data[0])
            data = data[1:]
        if self._decoder is None:
            self._keep(data)
        else:
            self._unpack(self._decoder, data)

    def _begin(self, kind: int) -> None:
        """Take the byte that tells the compression."""
        self._kind = kind
        if kind == ord("x"):
            self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MOST_XZ_MEMORY)
        elif kind != 0:
            raise UnsupportedError(f"a part of the delta has the unknown compression {kind}")

    def _unpack(self, decoder: lzma.LZMADecompressor, data: bytes | memoryview) -> None:
        if decoder.eof and data:
            raise CorruptError("there are bytes behind the end of its xz stream")
        while not decoder.eof:
            try:
                piece = decoder.decompress(data, _PIECE)
            except lzma.LZMAError as error:
                raise CorruptError(f"it is not an xz stream: {error}") from error
            data = b""
            self._keep(piece)
            if decoder.needs_input:
                return
        if decoder.unused_data:
            raise CorruptError("there are bytes behind the end of its xz stream")

    def _keep(self, piece: bytes | memoryview) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            raise CorruptError(f"its payload is longer than {self._limit} bytes, too long for what it should make")
        if self._fd is None and self._size <= MOST_IN_MEMORY:
            self._memory += piece
            return
        if self._fd is None:
            self._fd = _nameless()
            write_all(self._fd, self._memory)
            self._memory = bytearray()
        write_all(self._fd, piece)

    def finish(self) -> memoryview:
        """Return the payload, after the last byte."""
        if self._kind is None or (self._decoder is not None and not self._decoder.eof):
            raise CorruptError("its payload is cut short")
        self._decoder = None
        if self._fd is None:
            return memoryview(self._memory)
        try:
            return memoryview(mmap.mmap(self._fd, self._size, access=mmap.ACCESS_READ))
        finally:
            self.discard()

    def discard(self) -> None:
        """Give up what was kept."""
        self._memory = bytearray()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _nameless() -> int:
    """Open a file that has no name and goes when it is closed."""
    fd, name = tempfile.mkstemp(prefix="part-", dir=".")
    os.unlink(name)
    return fd


class Members(NamedTuple):
    """The members of a payload: modes as (uid, gid, mode), serialised sets of attributes, blob, operations."""

    modes: list[tuple[int, int, int]]
    xattrs: list[bytes]
    blob: memoryview
    operations: memoryview


def split(payload: memoryview) -> Members:
    """Cut a payload into its members; raise FormatError if it is malformed."""
    width = gvariant.offset_size(len(payload))
    if not width:
        raise FormatError("malformed part: it is empty")
    body = len(payload) - 3 * width
    blob_end, xattrs_end, modes_end = (
        int.from_bytes(payload[start : start + width], "little") for start in range(body, len(payload), width)
    )
    if not modes_end <= xattrs_end <= blob_end <= body or modes_end % _MODE:
        raise FormatError("malformed part: offsets out of order")
    if xattrs_end > _MAX_TABLE:
        raise UnsupportedError(f"a part of the delta has more than {_MAX_TABLE} bytes of modes and attributes")
    numbers = [int.from_bytes(payload[start : start + 4], "big") for start in range(0, modes_end, 4)]
    modes = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    xattrs: list[bytes] = []
    for element in gvariant.array_elements(payload[modes_end:xattrs_end], 1):
        if len(xattrs) == _MAX_ENTRIES:
            raise FormatError(f"malformed part: more than {_MAX_ENTRIES} sets of attributes")
        xattrs.append(bytes(element))
    return Members(modes, xattrs, payload[xattrs_end:blob_end], payload[blob_end:body])
