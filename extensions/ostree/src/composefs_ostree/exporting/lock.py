"""The lock of an ostree repository: shared while objects are written, exclusive while refs and the summary are.

It is libostree's, ``ostree_repo_lock_push``: a lock of an open file description on the file ``.lock``.  Who prunes the
repository has it exclusively.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable

from composefs_ext.errors import BusyError, CorruptError
from composefs_ext.files import Naming

__all__ = ["Lock"]

_SECONDS = 30
_FLOCK = "hhqqi4x"


class Lock:
    """The lock of one repository; taking it waits as long as libostree does."""

    def __init__(self, path: str, top_fd: int, sleep: Callable[[float], object]) -> None:
        """Open the file in the repository at ``path``, whose descriptor is ``top_fd``; nothing is locked yet.

        ``sleep`` is called, with seconds, while others have the lock, and may raise to end the waiting.
        Raises CorruptError if it is not a regular file.
        """
        self._path = path
        self._sleep = sleep
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with Naming(f"{path}/.lock"):
            try:
                self._fd = os.open(".lock", flags, 0o660, dir_fd=top_fd)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EISDIR):
                    raise
                raise CorruptError.at(
                    f"{path}/.lock", "it is not a regular file", hint="see what it is, and put it right"
                ) from None

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def share(self) -> None:
        """Have it with others; raise BusyError."""
        self._take(fcntl.F_RDLCK)

    def take_alone(self) -> None:
        """Let go of it if it is shared, and have it without others; raise BusyError."""
        self._take(fcntl.F_UNLCK)
        self._take(fcntl.F_WRLCK)

    def try_alone(self) -> None:
        """Have it without others, at once; raise OSError if they have it."""
        self._try(fcntl.F_WRLCK)

    def _take(self, kind: int) -> None:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                self._try(kind)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"{self._path} is locked by another program", hint="try again later", subject=self._path
                    ) from None
                self._sleep(0.1)
            else:
                return

    def _try(self, kind: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0))
