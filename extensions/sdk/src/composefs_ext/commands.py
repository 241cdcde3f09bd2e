"""A table of commands, of which only the one that runs is imported."""

from __future__ import annotations

from importlib import import_module

from composefs_ext.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from composefs_ext.core import Core
    from composefs_ext.extension import Handler, Request

__all__ = ["dispatch"]


def dispatch(commands: Mapping[str, str]) -> Handler:
    """Return a handler for ``main`` that runs the function of the command.

    ``commands`` has for the words of each where that is, as entry points are written:
    ``{"put": "hello.putting:put", "remote add": "hello.remotes:add"}``.
    """

    def run(request: Request, core: Core) -> dict[str, Any] | None:
        words = " ".join(request.command)
        if words not in commands:
            raise UsageError(f"this extension has no command {words!r}", hint="its manifest is of another version")
        module, _, function = commands[words].partition(":")
        result: dict[str, Any] | None = getattr(import_module(module), function)(request, core)
        return result

    return run
