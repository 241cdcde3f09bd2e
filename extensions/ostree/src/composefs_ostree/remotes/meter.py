"""Keeping all transfers of a pull together below a rate.

Several processes transfer at a time, and any of them may be the one that has something to do.  So they share one
account, in memory that a fork keeps in common: whoever takes bytes adds them, and who finds the account overdrawn
takes nothing until it is balanced again.  TCP then slows the server down.
"""

from __future__ import annotations

import mmap
from time import monotonic

__all__ = ["Meter"]

_BURST_SECONDS = 0.1
"""What may be saved up in a pause, in seconds of the rate."""


class Meter:
    """The account; ``rate`` is in bytes a second.  Make it before processes are forked that shall share it.

    It is one number: the time until which the bytes taken so far are enough.  Nobody locks it: a worker keeps no
    descriptor but its channel, and when two add at the very same time what is lost is one piece of 16 KiB.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._until = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")  # written and read in one piece

    def add(self, size: int) -> None:
        """Count bytes that were taken."""
        self._until[0] = max(self._until[0], monotonic() - _BURST_SECONDS) + size / self._rate

    def pause(self) -> float:
        """Return for how many seconds nothing should be taken, 0 if something may be."""
        return max(0.0, self._until[0] - monotonic())
