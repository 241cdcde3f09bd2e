"""The objects that a part makes: hashed and staged as they are written, and checked against their ids at their end.

What comes out for an object is a row as :mod:`composefs_ostree.fetching.stage` describes it; metadata has the size
-1.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256

from composefs_ext.errors import CorruptError, FormatError
from composefs_ostree.fetching.stage import check_space, create_staged, write_all
from composefs_ostree.formats.fileheader import regular_head, symlink_head, with_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from composefs_ostree.fetching.stage import Row, SmallContents

__all__ = ["METADATA", "FileOutput", "Heads", "metadata_row", "small_row"]

METADATA = -1
"""What stands for the size in the row of a metadata object."""

_CACHED = 4096
_MAX_TARGET = 4096
_LARGE = 1 << 20
_GATHERED = 64 << 10
"""Pieces below this are put together: those of a patch have a few bytes each, and a call of the system costs more."""


class Heads:
    """The heads of a part's files, by the numbers of mode and attributes: many files have the same of both."""

    def __init__(self, modes: list[tuple[int, int, int]], xattrs: list[bytes]) -> None:
        self._modes = modes
        self._xattrs = xattrs
        self._made: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def is_symlink(self, mode: int) -> bool:
        """Tell whether a mode is that of a symlink; raise FormatError if there is none of this number."""
        return stat.S_ISLNK(self._mode(mode)[2])

    def file(self, mode: int, xattrs: int, size: int) -> tuple[bytes, bytes]:
        """Return the head of a regular file, and what its id hashes before the content; raise FormatError."""
        found = self._made.get((mode, xattrs))
        if found is None:
            found = regular_head(*self._mode(mode), self._attributes(xattrs))
            if len(self._made) < _CACHED:
                self._made[mode, xattrs] = found
        head, hashed = found
        return with_size(head, size), hashed

    def symlink_row(self, file_id: bytes, mode: int, xattrs: int, target: memoryview) -> Row:
        """Return the row of a symlink; raise FormatError or CorruptError."""
        if len(target) > _MAX_TARGET:
            raise FormatError(f"a symlink has a target of {len(target)} bytes")
        head, hashed = symlink_head(*self._mode(mode), bytes(target), self._attributes(xattrs))
        _check(file_id, sha256(hashed).digest())
        return file_id, head, 0, None

    def _attributes(self, xattrs: int) -> bytes:
        if xattrs >= len(self._xattrs):
            raise FormatError(f"there is no set {xattrs} of extended attributes")
        return self._xattrs[xattrs]

    def _mode(self, mode: int) -> tuple[int, int, int]:
        if mode >= len(self._modes):
            raise FormatError(f"there is no mode {mode}")
        return self._modes[mode]


def metadata_row(object_id: bytes, data: bytes) -> Row:
    """Return the row of a dirtree, dirmeta or commit; raise CorruptError."""
    _check(object_id, sha256(data).digest())
    return object_id, data, METADATA, None


def small_row(small: SmallContents, file_id: bytes, head: bytes, digest: Hash, content: bytearray | memoryview) -> Row:
    """Return the row of a file whose content is in memory; raise CorruptError if it is another one.

    ``digest`` has taken in what its id hashes before the content.
    """
    digest.update(content)
    _check(file_id, digest.digest())
    return small.row(file_id, head, content)


class FileOutput:
    """A regular file in the making.  Small content is kept in memory, other content goes to a new staged file."""

    def __init__(
        self, file_id: bytes, head: bytes, checked: bytes, size: int, staged: str | None, small: SmallContents
    ) -> None:
        """``head`` and ``checked`` are as :meth:`Heads.file` returns them; ``staged`` is None for small content."""
        self._small = small
        self._id = file_id
        self._head = head
        self._hash = sha256(checked)
        self.size = size
        self.left = size
        self._staged = staged
        self._gathered = bytearray()
        self._fd: int | None = None
        if staged is not None:
            self._fd = create_staged(staged)
            if size > _LARGE:
                try:
                    check_space(self._fd, size)
                except BaseException:
                    self.discard()
                    raise

    def write(self, piece: bytes | bytearray | memoryview) -> None:
        """Append bytes; raise CorruptError if that makes it longer than it should be."""
        self.left -= len(piece)
        if self.left < 0:
            raise CorruptError(f"file {self._id.hex()} becomes longer than its {self.size} bytes")
        if self._fd is None or len(piece) < _GATHERED:
            self._gathered += piece
        else:
            self._put_gathered()
            self._put(self._fd, piece)
        if len(self._gathered) >= _GATHERED:
            self._put_gathered()

    def _put_gathered(self) -> None:
        if self._fd is not None and self._gathered:
            self._put(self._fd, self._gathered)
            self._gathered = bytearray()

    def _put(self, fd: int, piece: bytes | bytearray | memoryview) -> None:
        self._hash.update(piece)
        write_all(fd, piece)

    def finish(self) -> Row:
        """Return the row of the file; raise CorruptError if it is another one."""
        if self.left:
            raise CorruptError(f"file {self._id.hex()} ends after {self.size - self.left} of {self.size} bytes")
        if self._fd is None:
            return small_row(self._small, self._id, self._head, self._hash, self._gathered)
        self._put_gathered()
        _check(self._id, self._hash.digest())
        os.close(self._fd)
        self._fd = None
        return self._id, self._head, self.size, self._staged

    def discard(self) -> None:
        """Remove what was written."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            assert self._staged is not None
            os.unlink(self._staged)


def _check(object_id: bytes, digest: bytes) -> None:
    if digest != object_id:
        raise CorruptError(f"the object that it makes for {object_id.hex()} has another checksum")
