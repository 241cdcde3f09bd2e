"""When the kit waits no longer for an extension that owes an answer: nothing comes, and nothing goes on in it.

``run`` has no limit (P-25), and long work is no mistake.  So it is not time that counts, but sleep: patience is used up
only while every process of the extension sleeps, and it is whole again whenever a message passes, one of them writes
anything, or together they have used a hundredth of it in processor time.  One that could run and is not let, waits for
a disk, or was stopped by a debugger does not sleep.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import NamedTuple

from composefs.ext.patience import Patience
from composefs.ext.process import children

__all__ = ["PATIENCE", "Activity", "Silence"]

PATIENCE = 60.0
"""Seconds: twice of what programs usually wait for a server that says nothing."""

_SHARE = 0.01
_ASLEEP = frozenset("SIZX")
"""States of proc_pid_stat(5): in a sleep that a signal ends, idle, or dead."""

_STATE, _TIMES = 0, slice(11, 15)
"""Fields after the name: with the processor time of the process, and of those that it has waited for."""


class Activity(NamedTuple):
    """What processes do: if all are ``asleep``, the seconds ``used``, the bytes ``written``; and their ``names``."""

    asleep: bool
    used: float
    written: int
    names: tuple[str, ...]


class Silence:
    """Counts the ``seconds`` in which the processes that this one starts, but for ``strangers``, sleep in silence.

    ``names`` are those of the processes that were seen at last.
    """

    def __init__(self, patience: float, strangers: Collection[int] = ()) -> None:
        self.patience = patience
        self._strangers = strangers
        self._clock = Patience()
        self._looked = 0.0
        self._last = Activity(asleep=False, used=0.0, written=0, names=())
        self.names: tuple[str, ...] = ()
        self.seconds = 0.0

    def end(self) -> None:
        """Begin anew: a message has passed."""
        self.seconds = 0.0

    def lasts(self) -> bool:
        """Look, every STEP seconds of `composefs.ext.patience`, and say whether there is no patience left."""
        return self.count(activity(self._strangers), self._clock.now())

    def count(self, seen: Activity, now: float) -> bool:
        """Take in what was seen at a time; say whether there is no patience left."""
        step, self._looked = now - self._looked, now
        if seen.written != self._last.written or seen.used - self._last.used >= _SHARE * self.patience:
            self._last = seen
            self.seconds = 0.0
        elif seen.asleep:
            self.names = seen.names
            self.seconds += step
        return self.seconds >= self.patience


def activity(strangers: Collection[int] = ()) -> Activity:
    """Look at all processes that this one has started, and those that they have; but for ``strangers``."""
    asleep, ticks, written, names = True, 0, 0, []
    for pid in _descendants(strangers):
        with suppress(OSError):
            name, fields = _stat(f"/proc/{pid}/stat")
            names.append(name)
            ticks += sum(map(int, fields[_TIMES]))
            for thread in os.listdir(f"/proc/{pid}/task"):
                asleep &= _stat(f"/proc/{pid}/task/{thread}/stat")[1][_STATE] in _ASLEEP
        with suppress(OSError), open(f"/proc/{pid}/io", encoding="ascii") as file:  # not every kernel keeps count
            written += sum(int(line.split()[1]) for line in file if line.startswith("wchar:"))
    return Activity(asleep, ticks / os.sysconf("SC_CLK_TCK"), written, tuple(names))


def _descendants(strangers: Collection[int]) -> Iterator[int]:
    found = [pid for pid in children() if pid not in strangers]
    while found:
        pid = found.pop()
        yield pid
        with suppress(OSError):
            found += children(pid)


def _stat(path: str) -> tuple[str, list[str]]:
    """Return the name, in which may be anything, and the fields after it."""
    with open(path, encoding="utf-8", errors="replace") as file:
        head, _, tail = file.read().rpartition(")")
    return head.partition("(")[2], tail.split()
