"""Keeping all transfers of a pull together below a rate.

Several processes transfer at a time, and any of them may be the one that has something to do.  So they share one
account, in memory that a fork keeps in common: whoever takes bytes adds them, and who finds the account overdrawn
reads nothing until it is balanced again.  TCP then slows the server down.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Meter"]

_BURST_SECONDS = 0.1
"""What may be saved up in a pause, in seconds of the rate."""

_ACCOUNT = struct.Struct("<d")


class Meter:
    """The account; ``rate`` is in bytes a second.  Make it before processes are forked that shall share it.

    It is one number: the time until which the bytes taken so far are enough.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._account = mmap.mmap(-1, _ACCOUNT.size)
        self._lock = os.memfd_create("meter", os.MFD_CLOEXEC)

    def add(self, size: int) -> None:
        """Count bytes that were taken."""
        fcntl.lockf(self._lock, fcntl.LOCK_EX)
        try:
            (until,) = _ACCOUNT.unpack_from(self._account)
            until = max(until, monotonic() - _BURST_SECONDS) + size / self._rate
            _ACCOUNT.pack_into(self._account, 0, until)
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)

    def pause(self) -> float:
        """Return for how many seconds nothing should be read, 0 if something may be."""
        until: float = _ACCOUNT.unpack_from(self._account)[0]
        return max(0.0, until - monotonic())

    def count(self, take: Callable[[bytes], int | None]) -> Callable[[bytes], int | None]:
        """Return ``take`` with its bytes counted."""

        def counted(data: bytes) -> int | None:
            self.add(len(data))
            return take(data)

        return counted
