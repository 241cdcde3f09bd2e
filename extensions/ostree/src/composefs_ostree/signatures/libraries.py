"""Loading the libraries that check signatures, late, and surviving what they do with hostile bytes."""

from __future__ import annotations

from importlib import import_module

from composefs_ext.errors import ExtError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["OPENSSL_PURPOSE", "UnreadableError", "guarded", "load", "primitive"]

OPENSSL_PURPOSE = "ed25519 and SPKI signatures"


class UnreadableError(Exception):
    """A library refuses some bytes; the message is the first line of its own."""


# A distribution's pysequoia may be older than what we need, which is told by what it lacks.
_PROBES = {"pysequoia": "pysequoia.packet"}
_WANTED = {"pysequoia": "pysequoia>=0.1.30"}


def load(module: str, purpose: str) -> Any:
    """Import a module; raise UnsupportedError if it cannot be, for what cannot be checked must not pass."""
    try:
        if module in _PROBES:
            import_module(_PROBES[module])
        return import_module(module)
    except ImportError as error:
        import shlex

        library = module.partition(".")[0]
        raise UnsupportedError(
            f"{purpose} need the Python library {library}, which cannot be loaded: {error}",
            hint=f"pip install {shlex.quote(_WANTED.get(library, library))}",
            subject=library,
        ) from None


def primitive(name: str) -> Any:
    """Import one of cryptography's primitives as :func:`load` does: ``hashes``, ``asymmetric.rsa``."""
    return load(f"cryptography.hazmat.primitives.{name}", OPENSSL_PURPOSE)


def guarded(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call into a library; whatever it raises, a panic too, becomes an UnreadableError."""
    try:
        return call(*arguments, **named)
    except (ExtError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001  a panic of Rust code is no Exception
        raise UnreadableError((str(error).splitlines() or [type(error).__name__])[0][:300]) from None
