"""The content of a file: shared blocks (ioctl_ficlone(2)), copying (copy_file_range(2)), and reading (preadv(2)).

And a read lease (fcntl(2), "Leases"), which keeps others from writing to it meanwhile.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from composefs.linux.files import write_all
from composefs.linux.ioctls import FICLONE

__all__ = ["PIECE", "clone", "copy", "lease", "lease_is_unbroken", "read_pieces", "write_piece"]

PIECE = 1 << 18
"""How many bytes are read at once."""
_ZEROS = bytes(PIECE)

_SIGURG = int(signal.SIGURG)

# What file systems and kernels answer when these two files cannot share blocks.
_NOT_CLONEABLE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.EPERM, errno.ETXTBSY, errno.ENOSYS)


def clone(source: int, target: int) -> bool:
    """Make ``target`` share all of ``source``'s blocks, if the file system can; tell whether it could."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in _NOT_CLONEABLE:
            return False
        raise
    return True


def read_pieces(fd: int, position: int = 0) -> Iterator[memoryview]:
    """Read a file from a position, whatever its offset, in pieces of one buffer, each valid until the next."""
    view = memoryview(bytearray(PIECE))
    while count := os.preadv(fd, [view], position):
        yield view[:count]
        position += count


def write_piece(fd: int, piece: memoryview) -> None:
    """Write what :func:`read_pieces` has read, or go on behind a hole where that is a whole piece of zeros.

    A file that ends with one is still to be cut to its size.
    """
    if not piece[0] and piece.tobytes() == _ZEROS:
        os.lseek(fd, PIECE, os.SEEK_CUR)
    else:
        write_all(fd, piece)


def copy(source: int, target: int) -> None:
    """Append the content of ``source``, from its start, to ``target``, inside the kernel where it can do that."""
    position = 0
    with suppress(OSError):  # which it cannot do, or which reading and writing meet, too
        while count := os.copy_file_range(source, target, 1 << 30, position):
            position += count
    # The kernel answers 0 for some special files that have content (procfs), so reading has the last word.
    for piece in read_pieces(source, position):
        write_all(target, piece)


def lease(fd: int) -> bool:
    """Take a read lease on a file opened for reading; False if it is open for writing anywhere, or not ours to lease.

    While the lease is held, whoever opens the file for writing or truncates it is kept waiting by the kernel (for
    /proc/sys/fs/lease-break-time seconds), and closing ``fd`` gives it up.  The kernel would tell us by SIGIO, which
    ends a process that does not expect it; SIGURG, which nobody minds, is asked for instead.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, _SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOLCK):
            return False
        raise
    return True


def lease_is_unbroken(fd: int) -> bool:
    """Tell whether nobody has tried to open the file for writing since :func:`lease`."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK
