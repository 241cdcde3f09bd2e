"""The entry points of cfsctl and of the tools beside it: what has to be settled before their modules are loaded.

That is, first of all, that Ctrl-C ends the process without a traceback (ctrl_c.py): nothing that takes long is imported
before.
"""

from __future__ import annotations

# What the interpreter has loaded for itself, as in ctrl_c.
import _signal  # type: ignore[import-not-found]
import gc
import io
import os
import sys
from types import ModuleType

from composefs.cli import ctrl_c

__all__ = ["composefs_info", "main", "mkcomposefs", "mount_composefs"]

_GC_THRESHOLD = 50_000  # objects between two searches for cycles; Python's own threshold is 700


def main() -> None:
    """Run cfsctl with the process's arguments and exit."""
    if sys.flags.optimize > 1 and os.environ.get("PYTHONOPTIMIZE"):
        _begin_again(PYTHONOPTIMIZE="")  # it would take the docstrings away, which --help shows
    _begin()
    from importlib import import_module

    _import_when_used("inspect")
    parameters = _import_when_used("uuid", UUID=object)
    references = _import_when_used("annotationlib", ForwardRef=_Reference) if sys.version_info >= (3, 14) else {}
    with _Instead(datetime=import_module("_datetime"), gettext=_english()):
        from composefs.cli.main import main as run_and_exit
    parameters.clear()
    references.clear()
    run_and_exit()


def mkcomposefs() -> int:
    """Run mkcomposefs with the process's arguments and return its exit status."""
    _begin()
    from composefs.cli import mkcomposefs as tool

    return tool.main()


def composefs_info() -> int:
    """Run composefs-info with the process's arguments and return its exit status."""
    _begin()
    from composefs.cli import composefs_info as tool

    return tool.main()


def mount_composefs() -> int:
    """Run mount.composefs with the process's arguments and return its exit status."""
    _begin()
    from composefs.cli import mount_composefs as tool

    return tool.main()


def _begin() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        # Names in a repository are UTF-8, for everybody.  An extension hears of it by the environment; -X is for us
        # where the system has no such locale.
        _begin_again(b"-X", b"utf8", LC_ALL="C.UTF-8")
    ctrl_c.restore_defaults()
    # With PYTHONUNBUFFERED there is no buffer that goes on, or fails, where only a part could be written.
    if sys.stdout is not None and isinstance(sys.stdout.buffer, io.RawIOBase):
        sys.stdout = open(1, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors, closefd=False)  # noqa: SIM115
    # Nobody is kept from their own files, also not by a umask such as 0777: what is half made could not be removed.
    os.umask(os.umask(0o077) & 0o077)
    # Whoever starts us may have it ignored; then a process that ends is gone at once, and nobody can wait for it.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    # Next to nothing of what is imported and parsed is garbage; to look for some takes a twentieth of a short run.
    gc.set_threshold(_GC_THRESHOLD)


def _begin_again(*options: bytes, **environment: str) -> None:
    """Start over with other options of the interpreter and other variables, where that can be done."""
    # Not sys.orig_argv: where the C library knows characters that Python's codec has not, as in EUC-JP, Python cannot
    # make bytes of it again.
    try:
        with open("/proc/self/cmdline", "rb") as file:
            arguments = file.read().split(b"\0")[1:-1]
        if sys.executable:
            os.environ.update(environment)
            os.execv(sys.executable, [os.fsencode(sys.executable), *options, *arguments])  # noqa: S606  only ourselves
    except OSError:
        return


class _Instead:
    """Put modules in the place of others while click is imported; whoever imports those afterwards gets them whole.

    Before Python 3.12, datetime makes its classes in Python, 1 ms, before it takes those that its module in C has, and
    gettext comes with locale, 2 ms, to look for translations of click's texts, of which there are none.
    """

    def __init__(self, **modules: ModuleType) -> None:
        self._own = {name: module for name, module in modules.items() if name not in sys.modules}

    def __enter__(self) -> None:
        sys.modules.update(self._own)

    def __exit__(self, *_: object) -> None:
        for name in self._own:
            del sys.modules[name]


def _english() -> ModuleType:
    """Return what click takes of gettext, for texts that stay as they are."""
    module = ModuleType("gettext")
    vars(module).update(gettext=lambda text: text, ngettext=lambda one, several, count: one if count == 1 else several)
    return module


class _Reference:
    """What typing makes of the name of a type that click has in quotes: nobody looks for the type."""

    __forward_code__ = None

    def __init__(self, *_: object, **__: object) -> None: ...


def _import_when_used(name: str, **parameters: type) -> dict[str, type]:
    """Make a module load when an attribute of it is first used (PEP 562), not where it is imported.

    click imports inspect, which takes 5 ms, and uses it to print help; and uuid, which takes 3 with platform, for a
    type of parameter that no command has.  Since Python 3.14 typing loads annotationlib, 2 ms with ast, for a name of a
    type in quotes.

    ``parameters`` are what click's types may name while they are made, as it does since 8.4 with
    ``ParamType[uuid.UUID]``, and what it gets there; as soon as they are cleared, it is the module that is asked.
    """
    stand_in = ModuleType(name)

    def load(attribute: str) -> object:
        if attribute in parameters:
            return parameters[attribute]
        from importlib import import_module

        del sys.modules[name], stand_in.__getattr__
        module = import_module(name)
        stand_in.__dict__.update(vars(module))
        return getattr(module, attribute)

    vars(stand_in)["__getattr__"] = load
    sys.modules.setdefault(name, stand_in)
    return parameters
