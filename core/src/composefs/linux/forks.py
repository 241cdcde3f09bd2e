"""Copies of this process (fork(2)) that work beside it, and end with it (prctl(2), PR_SET_PDEATHSIG).

Threads would not do for hashing: a block of 4 KiB takes a few microseconds, and a thread would spend as long waiting
for the interpreter's lock.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from composefs.linux.closing import Closing
from composefs.linux.prctl import end_with_parent
from composefs.linux.signals import ASKING_TO_STOP

__all__ = ["Forks"]


class Forks(Closing):
    """Processes that each do some work and end; closing ends them, whatever they are doing.

    Whoever starts them should have no threads.
    """

    def __init__(self) -> None:
        self._pids: list[int] = []

    def start(self, count: int, work: Callable[[], object]) -> None:
        """Start ``count`` copies of this process that call ``work``.  Raises ``OSError``; some may be running then."""
        parent = os.getpid()
        # What a signal's handler raises between the fork and the next line would have a copy go on with our work, or
        # leave one that nobody ends.
        with _deferred_handlers():
            for _ in range(count):
                pid = os.fork()
                if not pid:
                    _run_copy(work, parent)
                self._pids.append(pid)

    def any_ended(self) -> bool:
        """Tell whether one of them has ended by itself, or by another's doing."""
        return any(os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) for pid in self._pids)

    def close(self) -> None:
        """End the processes."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)  # not yet waited for, so nobody else has its number
            os.waitpid(pid, 0)
        self._pids.clear()


@contextmanager
def _deferred_handlers() -> Iterator[None]:
    """Run the handlers of signals after the block; signals that are blocked in this thread would go to another one."""
    came: list[int] = []
    handlers = {}
    try:
        with suppress(ValueError):  # in another thread than the main one no handler runs
            for each in ASKING_TO_STOP:
                if signal.getsignal(each) is not None:  # one that Python did not install cannot be put back
                    handlers[each] = signal.signal(each, lambda number, _frame: came.append(number))
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


def _run_copy(work: Callable[[], object], parent: int) -> NoReturn:
    """Do the work, in the copy, and end it; never returns, nor raises into the code that was copied along."""
    status = 1
    try:
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first of us ends us
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if os.getppid() == parent:  # else it has ended before it was told that we want to know
            work()
            status = 0
    finally:
        os._exit(status)
