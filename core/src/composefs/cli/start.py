"""The entry point of cfsctl.

Until everything is loaded there is nothing to clean up and nobody who could tell an error: Ctrl-C ends the process at
once and without a traceback, also while the shell waits for completions.
"""

from __future__ import annotations

import gc
import signal

__all__ = ["main"]

_GC_THRESHOLD = 50_000  # objects between two searches for cycles; Python's own threshold is 700


def main() -> None:
    """Run cfsctl with the process's arguments and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where nohup or a shell's & has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Next to nothing of what is imported and parsed is garbage; to look for some takes a twentieth of a short run.
    gc.set_threshold(_GC_THRESHOLD)
    from composefs.cli.main import main as run_and_exit

    run_and_exit()
