"""The commands of ``cfsctl oci``, by name."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError, UsageError
from composefs_oci.digest import is_digest
from composefs_oci.names import manifest_stream, tag_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from composefs_ext import Core, Request

__all__ = ["run"]


def run(request: Request, core: Core) -> dict[str, Any]:
    """Run the command that the request names."""
    command = _COMMANDS.get(request.command)
    if command is None:
        raise UsageError(f"the OCI extension has no command {' '.join(request.command)!r}")
    return command(request, core)


def _tag(request: Request, core: Core) -> dict[str, Any]:
    digest = request.arguments["digest"].removeprefix("@")
    if not is_digest(digest):
        raise UsageError(f"{digest!r} is not a digest", hint="give all of it: sha256:, then 64 hexadecimal digits")
    name = request.arguments["name"]
    try:
        core.publish(refs=[{"name": tag_ref(name), "target": manifest_stream(digest)}]).result()
    except NotFoundError:
        raise NotFoundError(
            f"no image here has the manifest {digest}", hint="cfsctl oci images lists those that are", subject=digest
        ) from None
    core.output(f"Tagged {digest} as {name}\n")
    return {"manifest": digest, "name": name}


def _untag(request: Request, core: Core) -> dict[str, Any]:
    name = request.arguments["name"]
    try:
        core.publish(remove_refs=[tag_ref(name)]).result()
    except NotFoundError:
        raise NotFoundError(
            f"{name!r} is not the name of an image here", hint="cfsctl oci images lists the names", subject=name
        ) from None
    core.output(f"Removed tag {name}\n")
    return {"name": name}


def _list_tags(request: Request, core: Core) -> dict[str, Any]:
    from composefs_oci.access import access_of
    from composefs_oci.opening import open_source
    from composefs_oci.reference import parse_reference

    reference = parse_reference(request.arguments["image"], request.directory)
    with open_source(reference, access_of(request), lambda line: core.log("warning", line)) as source:
        tags = source.tags()
    core.output("".join(f"{tag}\n" for tag in tags) or "No tags found\n")
    return {"tags": tags}


def _pull(request: Request, core: Core) -> dict[str, Any]:
    from composefs_oci.pull import pull

    return pull(request, core)


_COMMANDS: dict[tuple[str, ...], Callable[[Request, Core], dict[str, Any]]] = {
    ("pull",): _pull,
    ("list-tags",): _list_tags,
    ("tag",): _tag,
    ("untag",): _untag,
}
