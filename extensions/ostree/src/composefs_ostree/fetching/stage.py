"""Bringing a file's content into staging, from memory or from a file, which is hashed on the way.

A file is reflinked where the file system does that, else copied.  In both cases the bytes that are hashed are those in
staging, so that nobody can change them in between.  A copy is one read of the content, which no copying inside the
kernel would spare; where it is all zeros, nothing is written.
"""

from __future__ import annotations

import errno
import fcntl
import os

from composefs_ext.errors import NoSpaceError
from composefs_ext.files import Naming
from composefs_ostree.fetching.blame import STAGING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from composefs_ext.packs import Packs

    Row = tuple[bytes, bytes, int, str | tuple[str, int] | None]
    """What came of a file object: its id, head and inline content, size of the content, where the content is.

    It is in a staged file, whose name that is, in a pack (the pack's name, position), or inline (None).
    """

__all__ = [
    "IN_STAGING",
    "SmallContents",
    "Stager",
    "check_space",
    "copy_range",
    "create_staged",
    "stage_bytes",
    "write_all",
]

IN_STAGING = Naming(STAGING)
"""Entered where something is written there, as errors of that have no name, or one that tells a user nothing."""

_FICLONE = getattr(fcntl, "FICLONE", 0x40049409)  # before Python 3.12 of the usual architectures
_BUFFER = 128 << 10
_ZEROS = bytes(_BUFFER)
_CANNOT_CLONE = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}
)
_OF_TARGET = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors of a reflink that are those of staging, and not of the file that is cloned; EIO may be of either."""


def create_staged(name: str) -> int:
    """Open a new staged file; its mode is that of the repository's objects, which spares the core a call for each."""
    with IN_STAGING:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)


def check_space(fd: int, size: int) -> None:
    """Raise NoSpaceError for content that cannot fit: a little deflate would fill the disk before it shows."""
    file_system = os.fstatvfs(fd)
    free = file_system.f_bfree * file_system.f_frsize
    if size > free and file_system.f_blocks:  # a file system that counts no blocks has no limit that we know
        raise NoSpaceError(
            f"No space left on device: its content has {size} bytes, and {free} are free",
            hint="free some space on the repository's disk and run the command again",
            subject=STAGING,
        )


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write to an open file in staging, whose disk may be full in the middle: then OSError is raised."""
    with IN_STAGING:
        written = os.write(fd, data)
        while written < len(data):
            written += os.write(fd, data[written:])


class SmallContents:
    """Where a content goes that is in memory, and so small that it needs no staged file: into its row, or into a pack.

    It goes into the row with up to ``inline_limit`` bytes, as it becomes a part of the commit's stream; ``largest`` is
    how many bytes it may have at all.
    """

    __slots__ = ("_packs", "inline_limit", "largest")

    def __init__(self, inline_limit: int, packs: Packs) -> None:
        self.inline_limit = inline_limit
        self.largest = max(inline_limit, packs.largest)
        self._packs = packs

    def row(self, file_id: bytes, head: bytes, content: bytes | bytearray | memoryview) -> Row:
        """Return the row of a file; its content has ``largest`` bytes at most."""
        size = len(content)
        if size <= self.inline_limit:
            return file_id, head + content, size, None
        with IN_STAGING:
            return file_id, head, size, self._packs.add(content)


def stage_bytes(content: bytes, staged: str) -> None:
    """Put a content into the new file ``staged``."""
    fd = create_staged(staged)
    try:
        write_all(fd, content)
    finally:
        os.close(fd)


class Stager:
    """Stages one file after the other; ``can_clone`` remembers that reflinks are impossible."""

    def __init__(self) -> None:
        self.can_clone = True
        self._buffer = memoryview(bytearray(_BUFFER))

    def stage(self, source: int, staged: str, size: int, digest: Hash) -> int:
        """Bring the content of an open file into the new file ``staged`` and hash it; return how many bytes it has.

        The file had ``size`` bytes when the caller looked; another number that is returned, or another hash, says that
        it was changed since.
        """
        fd = create_staged(staged)
        try:
            if self.can_clone and self._clone(source, fd):
                done = 0
                while done < size and (count := os.readv(fd, [self._buffer])):
                    digest.update(self._buffer[:count])
                    done += count
                return os.fstat(fd).st_size
            check_space(fd, size)
            return copy_range(source, None, size, fd, 0, digest, self._buffer)
        finally:
            os.close(fd)

    def _clone(self, source: int, fd: int) -> bool:
        """Let ``fd`` share the content of ``source``; False where that is impossible, now and for all that follow."""
        try:
            fcntl.ioctl(fd, _FICLONE, source)
        except OSError as error:
            if error.errno in _OF_TARGET:
                error.filename = STAGING
            if error.errno not in _CANNOT_CLONE:
                raise
            self.can_clone = False
        return self.can_clone


def copy_range(
    source: int, start: int | None, size: int, target: int, position: int, digest: Hash, buffer: memoryview
) -> int:
    """Copy up to about ``size`` bytes to ``position`` of another file and hash them; return how many there were.

    They are read at ``start``, or where the source stands if that is None.  Zeros become a hole, so the target must be
    new there.
    """
    done = 0
    ends_in_hole = False
    while done < size:
        piece = buffer
        if start is not None:
            piece = buffer[: min(len(buffer), size - done)]
            count = os.preadv(source, [piece], start + done)
        else:
            count = os.readv(source, [piece])
        if not count:
            break
        piece = piece[:count]
        digest.update(piece)
        ends_in_hole = piece[0] == 0 == piece[-1] and piece.tobytes() == _ZEROS[:count]
        if not ends_in_hole:
            written = 0
            with IN_STAGING:
                while written < count:
                    written += os.pwrite(target, piece[written:], position + done + written)
        done += count
    if ends_in_hole:
        with IN_STAGING:
            os.ftruncate(target, position + done)
    return done
