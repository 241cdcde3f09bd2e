"""Ctrl-C, SIGTERM and SIGHUP: what they do while a command is loaded, and what while it works.

While it is loaded there is nothing to clean up and nobody to report an error: each signal ends the process at once,
without a traceback.  Work they interrupt with an exception: SIGINT with KeyboardInterrupt, the others with Terminated,
which derives from it.  A signal that is ignored when the process starts, as nohup or a shell's & has it, stays ignored.
"""

from __future__ import annotations

# What the interpreter has loaded for itself; the module signal makes enumerations of it, which takes 1 ms.
import _signal  # type: ignore[import-not-found]
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Terminated", "raise_interrupts", "restore_defaults"]

_MOMENT = 0.01  # seconds
_TOGETHER = 0.5
"""Seconds: signals that come together are one request.  Whoever ends a session sends SIGTERM and SIGHUP at once, and
the second, raised in what cleans up after the first, would be the end of that."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: clean up as after Ctrl-C, and exit with 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def restore_defaults() -> None:
    """Let the three signals end the process, as they end any program that does not handle them."""
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)


def raise_interrupts() -> None:
    """Let the three signals raise KeyboardInterrupt or Terminated, of which none gets lost."""
    sys.unraisablehook = _raised_again
    raised = -_TOGETHER

    def interrupt(number: int, _frame: FrameType | None) -> None:
        nonlocal raised
        now = time.monotonic()
        if now - raised >= _TOGETHER:
            raised = now
            raise KeyboardInterrupt if number == _signal.SIGINT else Terminated(number)

    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        if _signal.getsignal(number) == _signal.SIG_DFL:
            _signal.signal(number, interrupt)


def _raised_again(lost: sys.UnraisableHookArgs) -> None:
    """Raise a KeyboardInterrupt again, a moment later, that Python has ignored in a destructor or callback."""
    interrupt = lost.exc_value
    if not isinstance(interrupt, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return

    def raise_again(_number: int, _frame: FrameType | None) -> None:
        raise interrupt

    _signal.signal(_signal.SIGALRM, raise_again)
    _signal.setitimer(_signal.ITIMER_REAL, _MOMENT)
