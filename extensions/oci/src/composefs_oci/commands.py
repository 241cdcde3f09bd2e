"""The commands of ``cfsctl oci``, by name."""

from __future__ import annotations

from importlib import import_module

from composefs_ext.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request

__all__ = ["run"]

_COMMANDS = {
    "pull": "pull",
    "images": "listing",
    "inspect": "listing",
    "referrers": "listing",
    "list-referrers": "listing",
    "tag": "tags",
    "untag": "tags",
    "list-tags": "tags",
    "layer": "layers",
    "import-layer": "layers",
    "dump": "trees",
    "compute-id": "trees",
    "mount": "trees",
    "prepare-boot": "boot",
    "copy": "copying",
    "fsck": "checking",
}
"""The module of each command, with a function of its name: only what runs is imported."""


def run(request: Request, core: Core) -> dict[str, Any]:
    """Run the command that the request names."""
    [name] = request.command
    if name not in _COMMANDS:
        raise UsageError(f"the OCI extension has no command {name!r}")
    module = import_module(f"composefs_oci.{_COMMANDS[name]}")
    result: dict[str, Any] = getattr(module, name.replace("-", "_"))(request, core)
    return result
