"""The entry point of cfsctl.

Until everything is loaded there is nothing to clean up and nobody who could tell an error: Ctrl-C ends the process at
once and without a traceback, also while the shell waits for completions.
"""

from __future__ import annotations

import gc
import signal
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["main"]

_GC_THRESHOLD = 50_000  # objects between two searches for cycles; Python's own threshold is 700


def main() -> None:
    """Run cfsctl with the process's arguments and exit."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where nohup or a shell's & has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Next to nothing of what is imported and parsed is garbage; to look for some takes a twentieth of a short run.
    gc.set_threshold(_GC_THRESHOLD)
    _import_when_used("inspect")
    from composefs.cli.main import main as run_and_exit

    run_and_exit()


def _import_when_used(name: str) -> None:
    """Have a module loaded when it is first asked for something (PEP 562), not where it is imported.

    click imports inspect, which takes 5 ms, and uses it to print help.  With importlib.util.LazyLoader, the second
    import of a module would load it.
    """
    stand_in = ModuleType(name)

    def load(attribute: str) -> Any:
        del sys.modules[name], stand_in.__getattr__
        module = import_module(name)
        stand_in.__dict__.update(vars(module))
        return getattr(module, attribute)

    stand_in.__getattr__ = load  # type: ignore[method-assign]
    sys.modules.setdefault(name, stand_in)
