"""Files of the old commit, which a delta's parts read: out of its stream, or out of the repository's objects.

They are not verified as they are read: whatever is made of them is.  When that has the wrong checksum, ``check`` tells
whether one of them was the cause.
"""

from __future__ import annotations

import errno
import mmap
import os
from hashlib import sha256

from composefs_ext.errors import ExtError, MissingObjectError, TooLargeError
from composefs_ostree.formats.fileheader import checksum_header, head_size, parse_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Repository
    from composefs_ostree.formats.commit_stream import CommitStream

__all__ = ["OldFiles"]

_PIECE = 1 << 20
_REPAIR = "pull the commit that the delta is from again, with --repair"

_MADV_POPULATE_READ = 22  # what the mmap module does not name (asm-generic/mman-common.h), Linux 5.14
_AT_ONCE = 16 << 20
"""Bytes of a large file that are brought in before those are let go: its size does not show in memory."""


class OldFiles:
    """The files of a commit that the composefs repository holds."""

    def __init__(self, commit: CommitStream | None, repository: Repository) -> None:
        """The repository's objects can be read; without a commit there are no files."""
        self._commit = commit
        self._repository = repository
        self._used: list[bytes] = []

    def read(self, file_id: bytes) -> memoryview:
        """Return a file's content; raise MissingObjectError if it is not there with its size, or TooLargeError."""
        self._used = [*self._used[-1:], file_id]
        return self._content(file_id)[1]

    def _content(self, file_id: bytes) -> tuple[bytes, memoryview]:
        """Return head and content."""
        try:
            entry = None if self._commit is None else self._commit.get(file_id)
            if entry is None:
                raise MissingObjectError("the old commit does not have it")
            end = head_size(entry.data)
            head = entry.data[:end]
            size = parse_head(head).size
            content = memoryview(entry.data)[end:] if entry.content is None else self._object(entry.content, size)
            if len(content) != size:
                raise MissingObjectError(f"it has {len(content)} bytes, not {size}")
        except TooLargeError as error:
            raise TooLargeError(f"the delta needs file {file_id.hex()}, which {error.message}") from error
        except (ExtError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise MissingObjectError(f"the delta needs file {file_id.hex()}: {reason}", hint=_REPAIR) from error
        return head, content

    def _object(self, content_id: str, size: int) -> memoryview:
        with open(self._repository.open(content_id, size), "rb") as file:
            return memoryview(_map(file.fileno()) if size else b"")  # which mmap(2) refuses

    def check(self) -> None:
        """Raise MissingObjectError if a file that was read lately is damaged."""
        for file_id in self._used:
            head, content = self._content(file_id)
            digest = sha256(checksum_header(head))
            for start in range(0, len(content), _PIECE):
                digest.update(content[start : start + _PIECE])
            if digest.digest() != file_id:
                raise MissingObjectError(f"file {file_id.hex()}, which the delta needs, is damaged here", hint=_REPAIR)


def _map(fd: int) -> mmap.mmap:
    """Map an open file, all of which was brought in: a page that cannot be read would end who looks at it (SIGBUS).

    Raises OSError, EIO for such a page, and TooLargeError.
    """
    try:
        data = mmap.mmap(fd, 0, access=mmap.ACCESS_READ)
    except (OverflowError, ValueError) as error:
        raise TooLargeError("cannot be mapped by a process of 32 bits") from error
    is_large = len(data) > _AT_ONCE
    try:
        for start in range(0, len(data), _AT_ONCE):
            data.madvise(_MADV_POPULATE_READ, start, _AT_ONCE)
            if is_large:
                data.madvise(mmap.MADV_DONTNEED, start, _AT_ONCE)  # of this mapping; the kernel's cache has them
    except OSError as error:
        if error.errno != errno.EINVAL:  # which says that this kernel does not know how
            data.close()
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
    return data
