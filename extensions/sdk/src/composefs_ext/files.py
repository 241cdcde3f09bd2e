"""Opening a file by a path where anything may be, and naming one where the system does not."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["Naming", "open_regular"]


def open_regular(path: str, *, follow: bool = True, dir_fd: int | None = None) -> int | None:
    """Open a regular file for reading, through a symlink only if ``follow``; None if it is something else.

    The path may be relative to the directory ``dir_fd``.  Raises OSError as open(2) does: ELOOP for a symlink that is
    not followed.
    """
    # O_NONBLOCK, as a named pipe would be waited for until somebody writes to it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno != errno.ENXIO:  # a socket
            raise
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


class Naming:
    """While entered, gives an OSError that names no file, or one relative to a descriptor, this path as its file.

    What writes, reads and syncs by a descriptor raises such errors, which tell a user nothing; and a disk that is full
    would be looked for elsewhere.
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
