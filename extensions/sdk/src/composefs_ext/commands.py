"""What the commands of several extensions share: a table, of which only what runs is imported, and mounting."""

from __future__ import annotations

from importlib import import_module

from composefs_ext.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from composefs_ext.core import Core
    from composefs_ext.extension import Handler, Request

__all__ = ["dispatch", "mount"]


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


def mount(request: Request, core: Core, image: str) -> dict[str, Any]:
    """Mount an image, given by its id, as the arguments of ``mount`` say; return the result of the command.

    They are ``path`` and, where the manifest has them, ``upperdir``, ``workdir`` and ``read_write``: those of
    ``cfsctl mount``.
    """
    path: str = request.arguments["path"]
    core.image_mount(
        path,
        id=image,
        upperdir=request.get("upperdir"),
        workdir=request.get("workdir"),
        read_write=request.get("read_write"),
    ).result()
    return {"image": image, "path": path}
