"""Opening a file by a path where anything may be."""

from __future__ import annotations

import os
import stat

__all__ = ["open_regular"]


def open_regular(path: str, *, follow: bool = True) -> int | None:
    """Open a regular file for reading, through a symlink only if ``follow``; None if it is something else.

    Raises OSError as open(2) does: ELOOP for a symlink that is not followed.
    """
    # O_NONBLOCK, as a named pipe would be waited for until somebody writes to it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None
