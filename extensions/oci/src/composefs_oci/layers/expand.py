"""Writing a sparse file whole, from the pieces that an archive holds of it; the holes stay holes in staging."""

from __future__ import annotations

import os
from collections.abc import Iterator

from composefs_ext.errors import FormatError, TooLargeError
from composefs_oci.formats.tar.sparse import Sparse, map_in_content

__all__ = ["MAX_EXPANDED", "Expander"]

MAX_EXPANDED = 8 << 30
"""Bytes of the sparse files of a layer, holes included: all of them are read for the digests."""


class Expander:
    """Takes the content of a sparse entry, in order, and writes the file to a descriptor."""

    def __init__(self, sparse: Sparse, fd: int, name: str) -> None:
        """``name`` is the file's, for messages.  Raises TooLargeError."""
        if sparse.size > MAX_EXPANDED:
            raise TooLargeError(
                f"{name}: the sparse file has {sparse.size} bytes, more than {MAX_EXPANDED}",
                hint="the image should hold such a file without its holes, or not at all",
            )
        self._sparse = sparse
        self._fd = fd
        self._name = name
        self._pieces = None if sparse.pieces is None else iter(sparse.pieces)
        self._head = bytearray()
        self._enough = 0
        self._skip = 0
        self._offset = self._left = 0

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the content.  Raises FormatError."""
        if self._pieces is None:
            self._head += data
            if len(self._head) < self._enough:
                return
            data = bytes(self._head)
            found = map_in_content(data, self._sparse.size, self._name)
            if found is None:
                self._enough = 2 * len(data)  # not anew for each piece of a long map
                return
            sparse, self._skip = found
            assert sparse.pieces is not None
            self._pieces = iter(sparse.pieces)
            self._head.clear()
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = memoryview(data)[skipped:]  # of which a piece is cut off at a time
        while data:
            if not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    raise FormatError(f"{self._name}: there is more content than the map of the sparse file tells")
                self._offset, self._left = piece
            written = os.pwrite(self._fd, data[: self._left], self._offset)
            self._offset += written
            self._left -= written
            data = data[written:]

    def through(self, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        """Write pieces of the content, and pass them on."""
        for piece in pieces:
            self.write(piece)
            yield piece

    def finish(self) -> int:
        """Give the file its size and return that.  Raises FormatError if content is missing."""
        if self._head:  # there may be a whole map, though less came than was waited for
            self._enough = 0
            self.write(b"")
        if self._pieces is None or self._skip or self._left or next(self._pieces, None) is not None:
            raise FormatError(f"{self._name}: there is less content than the map of the sparse file tells")
        os.ftruncate(self._fd, self._sparse.size)
        return self._sparse.size
