"""Settings of an extension in environment variables, which its manifest names under ``environment``."""

from __future__ import annotations

import os

from composefs_ext.errors import UsageError

__all__ = ["number"]

_LARGEST = 86400


def number(name: str, default: float) -> float:
    """Return the number, from 0 to 86400, in a variable, or the default without it; raise UsageError if it is none."""
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _LARGEST:
        raise UsageError(f"{name}={text!r} is not a number between 0 and {_LARGEST}")
    return value
