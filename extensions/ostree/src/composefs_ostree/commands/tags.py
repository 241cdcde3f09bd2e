"""``images``, ``tag`` and ``untag``: the refs here, and the commit that each names."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError
from composefs_ext.text import table
from composefs_ostree.formats.commit_stream import commit_of_stream, is_partial
from composefs_ostree.formats.names import check_ref
from composefs_ostree.held.refs import all_refs, find_stream, hint_for, ref_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request

__all__ = ["images", "tag", "untag"]


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
