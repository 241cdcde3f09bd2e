"""What serving calls takes, loaded in pieces while the extension loads too and nothing has come from it yet.

Whatever is not loaded when it is needed is loaded then, so that no piece holds up an answer for longer than it takes
itself: the extension's first answer is waited for, then ``run`` is sent, and while the extension imports what its
command needs there is time for the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from composefs.ext.context import Context

__all__ = ["preparations"]

_MODULES = (
    "hashlib",
    "composefs.repository.adoption",
    "zstandard",
    "composefs.repository.publish",
    "composefs.dumpfile",
    "composefs.ext.calls",
)
"""In pieces of one to four milliseconds, in the order in which they import each other."""


def preparations(context: Context) -> list[Callable[[], object]]:
    """Return what is to be called for a session, the last first."""
    pieces: list[Callable[[], object]] = [partial(import_module, name) for name in _MODULES]
    if context.command.repository == "write":  # whose streams and images are hashed
        pieces.append(lambda: import_module("composefs.fsverity").prepare(context.algorithm))
    return pieces[::-1]
