"""Signals that ask a running command to stop, noticed without being raised inside somebody's half-done work.

The first one is a request: the session tells the extension and lets it clean up.  The second kills the extension at
once.  The third does what it did before, in case it is the core that hangs, or raises KeyboardInterrupt.  A SIGTERM and
a SIGHUP are one request: whoever ends a session sends both.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Self

from composefs.errors import CancelledError
from composefs.linux.signals import ASKING_TO_STOP

__all__ = ["Interrupts"]

_ENDING: dict[int, int] = {signal.SIGTERM: signal.SIGHUP, signal.SIGHUP: signal.SIGTERM}


class Interrupts:
    """While entered, counts requests by SIGINT, SIGTERM and SIGHUP.

    ``first`` is the first signal, and ``fd`` readable when one has come.  Who has somebody else's reason to stop the
    extension adds to ``count``.

    Signals that the process ignores stay ignored, and in a thread other than the main one nothing is changed, as
    Python delivers signals to the main thread only.
    """

    def __init__(self) -> None:
        self.count = 0
        self.first: signal.Signals | None = None
        self.kill: Callable[[], None] | None = None
        self.fd = -1
        self._is_put_off = False
        self._asked: dict[int, int] = dict.fromkeys(ASKING_TO_STOP, 0)
        self._write_fd = -1
        self._wakeup_before = -1
        self._handlers: dict[int, signal.Handlers] = {}

    def __enter__(self) -> Self:
        self.fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if threading.current_thread() is threading.main_thread():
            for number in ASKING_TO_STOP:
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN and before is not None:
                    self._handlers[number] = before  # type: ignore[assignment]  # any of the kinds signal() takes back
                    signal.signal(number, self._notice)
            self._wakeup_before = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._wakeup_before)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write_fd)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number)
        asked = self._asked
        asked[number] += 1
        if number in _ENDING and asked[number] <= asked[_ENDING[number]]:
            return
        self.count += 1
        if self.count == 2 and self.kill is not None:
            self.kill()
        elif self.count > 2 and not self._is_put_off:
            before = self._handlers[number]
            if not callable(before):
                raise KeyboardInterrupt
            before(number, frame)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Raise nothing in the block, which is short and must be done as a whole."""
        self._is_put_off = True
        try:
            yield
        finally:
            self._is_put_off = False

    def error(self, what: str) -> CancelledError:
        """Return the error that tells of ``what`` has been asked to stop."""
        number = self.first or signal.SIGINT
        done = "interrupted" if number is signal.SIGINT else "terminated"
        return CancelledError.by_signal(number, f"{what} was {done}")

    def drain(self) -> None:
        """Make ``fd`` unreadable again."""
        with suppress(BlockingIOError):
            while os.read(self.fd, 512):
                pass
