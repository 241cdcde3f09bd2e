"""Loading the libraries that check signatures, late, and surviving what they do with hostile bytes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from composefs_ext.errors import ExtError, UnsupportedError

__all__ = ["UnreadableError", "guarded", "load", "primitive"]


class UnreadableError(Exception):
    """A library refuses some bytes; the message is the first line of its own."""


# What needs a library, and how it is installed.
_LIBRARIES = {
    "cryptography": ("ed25519 and SPKI signatures", "cryptography"),
    "pysequoia": ("OpenPGP signatures", "pysequoia>=0.1.32"),
}


def load(module: str) -> Any:
    """Import a module; raise UnsupportedError if it cannot be, for what cannot be checked must not pass."""
    library = module.partition(".")[0]
    try:
        if library == "pysequoia":  # a distribution's may be older than what we need, and lack this
            import_module("pysequoia.packet")
        return import_module(module)
    except ImportError as error:
        import shlex

        purpose, wanted = _LIBRARIES[library]
        raise UnsupportedError(
            f"{purpose} need the Python library {library}, which cannot be loaded: {error}",
            hint=f"pip install {shlex.quote(wanted)}",
            subject=library,
        ) from None


def primitive(name: str) -> Any:
    """Import one of cryptography's primitives as :func:`load` does: ``hashes``, ``asymmetric.rsa``."""
    return load(f"cryptography.hazmat.primitives.{name}")


def guarded(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call into a library; whatever it raises, a panic too, becomes an UnreadableError."""
    try:
        return call(*arguments, **named)
    except (ExtError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  a panic of Rust code is no Exception
        raise UnreadableError((str(error).splitlines() or [type(error).__name__])[0][:300]) from None
