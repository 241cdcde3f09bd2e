"""Files of which nothing is known but the path: opening and reading them, and errors that name them."""

from __future__ import annotations

import errno
import os
import stat

from composefs_ext.errors import CorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["Naming", "attribute_names", "open_regular", "read_regular", "read_up_to", "sync_file_system"]

_NOT_REGULAR = "it is not a regular file"
_PIECE = 64 << 10


def open_regular(path: str, *, follow: bool = True, dir_fd: int | None = None) -> int:
    """Open a regular file for reading, through a symlink only if ``follow``; return the descriptor.

    The path may be relative to the directory ``dir_fd``.  Raises OSError as open(2) does, and CorruptError, which does
    not name the file, for anything but a regular file.
    """
    # O_NONBLOCK, as a named pipe would be waited for until somebody writes to it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP:  # not followed, or one that leads to itself
            raise CorruptError("it is a symlink") from None
        if error.errno == errno.ENXIO:  # a socket
            raise CorruptError(_NOT_REGULAR) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CorruptError(_NOT_REGULAR)
    return fd


def read_regular(path: str, most: int, *, follow: bool = True, dir_fd: int | None = None) -> bytes:
    """Return what is in a regular file; raise as `open_regular`, also CorruptError for more than ``most`` bytes."""
    with open(open_regular(path, follow=follow, dir_fd=dir_fd), "rb") as file:
        data = read_up_to(file, most + 1)
    if len(data) > most:
        raise CorruptError(f"it is longer than {most} bytes")
    return data


def read_up_to(file: BinaryIO, most: int) -> bytes:
    """Read the rest of a regular file, or ``most`` bytes of it.

    ``file.read(most)`` would ask for that much memory first, which may be refused where memory is limited.
    """
    if size := os.fstat(file.fileno()).st_size:
        return file.read(min(most, size))
    data = bytearray()  # there may be something all the same, as in /proc and in some file systems of FUSE
    while piece := file.read(min(most - len(data), _PIECE)):
        data += piece
    return bytes(data)


def attribute_names(file: int | bytes | str) -> list[str]:
    """Return the names of the extended attributes of an open file, or of what is at a path, a symlink also.

    There are none where the file system knows no such thing, as many of FUSE.
    """
    try:
        return os.listxattr(file, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []


def sync_file_system(directory: int) -> None:
    """Wait until everything on the file system of an open directory is durable: syncfs(2)."""
    import ctypes  # takes 2 ms that most commands need not spend

    if ctypes.CDLL(None, use_errno=True).syncfs(directory):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Naming:
    """A context manager that puts a path into an OSError of its block that names no file, or not by an absolute path.

    Writing, reading and syncing by a descriptor raise such errors, from which a user cannot tell which file, or which
    full disk, was meant.
    """

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        """Name the file."""
        if isinstance(error, OSError) and not (isinstance(error.filename, str) and os.path.isabs(error.filename)):
            error.filename = self._path
