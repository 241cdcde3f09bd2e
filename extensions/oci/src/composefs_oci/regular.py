"""Opening a file by a path where anything may be: a named pipe would be waited for until somebody writes to it."""

from __future__ import annotations

import os
import stat

from composefs_ext.errors import FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io

__all__ = ["open_regular"]


def open_regular(path: str) -> io.FileIO:
    """Open a regular file, and nothing else, unbuffered; raise OSError as open does, FormatError if it is none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FormatError(f"{path} is not a regular file", subject=path)
    return open(fd, "rb", buffering=0)
