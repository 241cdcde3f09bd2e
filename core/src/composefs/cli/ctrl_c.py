"""Ctrl-C: what it does while a command is loaded, and what while it works.

Until everything is loaded there is nothing to clean up and nobody who could tell an error: Ctrl-C ends the process at
once and without a traceback.  The work it interrupts, by KeyboardInterrupt, as other signals do by what main.py derives
from it.  Where nohup or a shell's & has the signal ignored, it stays so.
"""

from __future__ import annotations

# What the interpreter has loaded for itself; the module signal makes enumerations of it, which takes 1 ms.
import _signal  # type: ignore[import-not-found]
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

__all__ = ["ends_the_process", "interrupts"]

_MOMENT = 0.01  # seconds


def ends_the_process() -> None:
    """Have it end the process, as it ends programs that know nothing of it."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def interrupts() -> None:
    """Have it raise KeyboardInterrupt again, and lose none, whoever raises it."""
    sys.unraisablehook = _raised_again
    if _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)


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
