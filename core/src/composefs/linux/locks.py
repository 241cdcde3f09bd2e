"""Advisory locks of whole files and directories: flock(2).

A lock belongs to the open file description, so every operation opens a descriptor of its own, and closing that is what
unlocks.  A lock is never converted: flock(2) does that in two steps, and two holders of a shared lock who both want the
exclusive one wait for each other for ever.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable

from composefs.errors import BusyError, CancelledError

__all__ = ["lock", "try_lock"]

_POLL_SECONDS = 0.05


def try_lock(fd: int, *, exclusive: bool) -> bool:
    """Lock an open file or directory if that is possible at once, and tell whether it was.

    A descriptor opened for reading is enough, for the exclusive lock and on a read-only file system too.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(
    fd: int,
    what: str,
    *,
    exclusive: bool,
    wait: float = 0.0,
    hint: str | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> None:
    """Lock an open file or directory, trying for ``wait`` seconds; BusyError, naming ``what``, after that.

    ``interrupted`` is asked meanwhile whether to give up with CancelledError, where signals themselves raise nothing.
    """
    deadline = time.monotonic() + wait
    while not try_lock(fd, exclusive=exclusive):
        if time.monotonic() >= deadline:
            raise BusyError(f"{what} is in use by another process", hint=hint, retryable=True)
        if interrupted is not None and interrupted():
            raise CancelledError(f"interrupted while waiting for {what}")
        time.sleep(_POLL_SECONDS)
