"""The commands of ``cfsctl ostree`` that are small: the others are modules of their own."""

from __future__ import annotations

from composefs_ext import commands
from composefs_ext.errors import NotFoundError
from composefs_ext.text import table
from composefs_ostree.formats.commit_stream import commit_of_stream, is_partial
from composefs_ostree.formats.names import check_ref
from composefs_ostree.held.refs import all_refs, find_stream, hint_for, ref_name
from composefs_ostree.held.streams import image_of, open_commit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request

__all__ = ["compute_id", "dump", "images", "mount", "tag", "untag"]


def _draft_dump(request: Request, core: Core) -> tuple[str, str | None]:
    """Write the dump of the commit that the request names; return the names of staged file and draft."""
    from composefs_ostree.commands.pulling import wants_nul
    from composefs_ostree.held.dumptext import draft_dump
    from composefs_ostree.held.tree import load

    commit, _ = open_commit(core, find_stream(core, request.arguments["ref"]), partial=True)
    return draft_dump(core, load(commit), keep_nul=bool(wants_nul(request)))


def dump(request: Request, core: Core) -> dict[str, Any]:
    """Print a commit's tree as a composefs dump."""
    text = core.staging.new_name("text")
    with core.progress("tree"):
        rest, draft = _draft_dump(request, core)
        size = core.image_dump(rest, text, draft).result()
    core.output_file(text)
    return {"size": size}


def compute_id(request: Request, core: Core) -> dict[str, Any]:
    """Print the id of a commit's image, whether or not it was made."""
    with core.progress("tree"):
        image = core.image_digest(*_draft_dump(request, core)).result()["id"]
    core.output(f"{image}\n")
    return {"id": image}


def images(_request: Request, core: Core) -> dict[str, Any]:
    """List the refs, and the commit that each names."""
    rows: list[dict[str, Any]] = [
        {"name": name, "commit": commit_of_stream(target).hex(), "partial": is_partial(target)}
        for name, target in sorted(all_refs(core).items())
    ]
    cells = [(row["name"], row["commit"] + "  partial" * row["partial"]) for row in rows]
    core.output(table(("NAME", "COMMIT"), cells) if rows else "No ostree commits found\n")
    return {"images": rows}


def tag(request: Request, core: Core) -> dict[str, Any]:
    """Give a commit that is here one more ref, of a name that ostree would take: REF or REMOTE:REF."""
    from composefs_ostree.remotes.record import check_remote_name

    source, name = request.arguments["source"], request.arguments["name"]
    full = ref_name(name)
    remote, colon, ref = name.rpartition(":")
    check_ref(ref)
    if colon:
        check_remote_name(remote)
    target = find_stream(core, source)
    core.publish(refs=[{"name": full, "target": target}]).result()
    core.output(f"Tagged {source} as {name}{' (partial)' if is_partial(target) else ''}\n")
    return {"commit": commit_of_stream(target).hex(), "name": name, "partial": is_partial(target)}


def untag(request: Request, core: Core) -> dict[str, Any]:
    """Remove a ref."""
    name = request.arguments["name"]
    try:
        core.publish(remove_refs=[ref_name(name)]).result()
    except NotFoundError:
        raise NotFoundError(f"{name!r} is not a known ostree ref", hint=hint_for(core, name), subject=name) from None
    return {"name": name}


def mount(request: Request, core: Core) -> dict[str, Any]:
    """Mount the image that a pull has made."""
    target = find_stream(core, request.arguments["ref"])
    image = image_of(core.stream_get(name=target).result())
    if image is None:
        raise NotFoundError(
            f"commit {commit_of_stream(target).hex()} has no image here",
            hint="pull it again with this cfsctl, and without --commit-metadata-only",
            subject=target,
        )
    return commands.mount(request, core, image)
