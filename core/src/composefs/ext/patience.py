"""How long an extension is waited for: time in which it could have done something.

While both processes are stopped (a debugger, job control, a machine that sleeps or is out of breath) no patience is
used up.  Such a gap cannot be seen directly, so one waits in short steps, and none counts for more than it was to last.
What the core does for the extension counts in full: otherwise long calls would give it all the time that it likes.
"""

from __future__ import annotations

import time
from math import inf

__all__ = ["STEP", "Patience"]

STEP = 0.25
"""Seconds: the longest that one waits at once, and the most that the time between two looks at the clock counts."""


class Patience:
    """A clock, in seconds since it was made, that does not run on while nobody can look at it."""

    def __init__(self) -> None:
        self._counted = 0.0
        self._looked = time.monotonic()

    def now(self) -> float:
        """Look at the clock, which has to be done at least every STEP seconds."""
        return self._look(STEP)

    def work_done(self) -> float:
        """Look at the clock after work that began when it was looked at last."""
        return self._look(inf)

    def _look(self, most: float) -> float:
        looked = time.monotonic()
        self._counted += min(looked - self._looked, most)
        self._looked = looked
        return self._counted
