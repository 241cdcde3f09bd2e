"""Ctrl-C, SIGTERM and SIGHUP: what they do while a command is loaded, and what while it works.

Until everything is loaded there is nothing to clean up and nobody who could tell an error: each ends the process at
once and without a traceback.  Work is interrupted: by KeyboardInterrupt, and by what derives from it for the other two.
Where nohup or a shell's & has a signal ignored, it stays so.
"""

from __future__ import annotations

# What the interpreter has loaded for itself; the module signal makes enumerations of it, which takes 1 ms.
import _signal  # type: ignore[import-not-found]
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Terminated", "ends_the_process", "interrupts"]

_MOMENT = 0.01  # seconds


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came: clean up as after Ctrl-C, and exit with 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def ends_the_process() -> None:
    """Have the three signals end the process, as they end programs that know nothing of them."""
    for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, _signal.SIG_DFL)


def interrupts() -> None:
    """Have the three signals raise KeyboardInterrupt, and lose none, whoever raises it."""
    sys.unraisablehook = _raised_again
    for number, handler in (
        (_signal.SIGINT, _signal.default_int_handler),
        (_signal.SIGTERM, _terminate),
        (_signal.SIGHUP, _terminate),
    ):
        if _signal.getsignal(number) == _signal.SIG_DFL:
            _signal.signal(number, handler)


def _terminate(number: int, _frame: FrameType | None) -> None:
    raise Terminated(number)


def _raised_again(lost: sys.UnraisableHookArgs) -> None:
    """Have a KeyboardInterrupt raised a moment later, which Python ignores in destructors and callbacks."""
    interrupt = lost.exc_value
    if not isinstance(interrupt, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return

    def raise_again(_number: int, _frame: FrameType | None) -> None:
        raise interrupt

    _signal.signal(_signal.SIGALRM, raise_again)
    _signal.setitimer(_signal.ITIMER_REAL, _MOMENT)
