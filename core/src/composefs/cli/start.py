"""The entry point of cfsctl.

Until everything is loaded there is nothing to clean up and nobody who could tell an error: Ctrl-C ends the process at
once and without a traceback, also while the shell waits for completions.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
    parameters = _import_when_used("uuid", UUID=object)
    with _instead(datetime=import_module("_datetime"), gettext=_english()):
        from composefs.cli.main import main as run_and_exit
    parameters.clear()
    run_and_exit()


@contextmanager
def _instead(**modules: ModuleType) -> Iterator[None]:
    """Have modules stand for others while click is imported: whoever imports those afterwards gets them whole.

    Before Python 3.12, datetime makes its classes in Python, 1 ms, before it takes those that its module in C has, and
    gettext comes with locale, 2 ms, to look for translations of click's texts, of which there are none.
    """
    own = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(own)
    try:
        yield
    finally:
        for name in own:
            del sys.modules[name]


def _english() -> ModuleType:
    """Return what click takes of gettext, for texts that stay as they are."""
    module = ModuleType("gettext")
    vars(module).update(gettext=lambda text: text, ngettext=lambda one, several, count: one if count == 1 else several)
    return module


def _import_when_used(name: str, **parameters: type) -> dict[str, type]:
    """Have a module loaded when it is first asked for something (PEP 562), not where it is imported.

    click imports inspect, which takes 5 ms, and uses it to print help; and uuid, which takes 3 with platform, for a
    type of parameter that no command has.  With importlib.util.LazyLoader, the second import of a module would load it.

    ``parameters`` are what a class that is made meanwhile may name in its brackets, as click's does since 8.4 with
    ``ParamType[uuid.UUID]``, and what it gets there; as soon as they are cleared, it is the module that is asked.
    """
    stand_in = ModuleType(name)

    def load(attribute: str) -> Any:
        if attribute in parameters:
            return parameters[attribute]
        del sys.modules[name], stand_in.__getattr__
        module = import_module(name)
        stand_in.__dict__.update(vars(module))
        return getattr(module, attribute)

    vars(stand_in)["__getattr__"] = load
    sys.modules.setdefault(name, stand_in)
    return parameters
