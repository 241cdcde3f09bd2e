"""``tag``, ``untag`` and ``list-tags``."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError
from composefs_ext.text import printable
from composefs_oci.held import find_manifest, not_here
from composefs_oci.names import manifest_stream, tag_ref
from composefs_oci.referrers import forget_referrers, let_go

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request

__all__ = ["list_tags", "tag", "untag"]


def tag(request: Request, core: Core) -> dict[str, Any]:
    """Give an image that is here one more name."""
    image, name = request.arguments["digest"], request.arguments["name"]
    digest = find_manifest(core, image)
    try:
        published = core.publish(refs=[{"name": tag_ref(name), "target": manifest_stream(digest)}]).result()
    except NotFoundError:
        raise not_here(image) from None
    forget_referrers(core, name, manifest_stream(digest), published)
    core.output(f"Tagged {digest} as {name}\n")
    return {"manifest": digest, "name": name}


def untag(request: Request, core: Core) -> dict[str, Any]:
    """Remove a name; with the last one of an image go the refs that keep its referrers."""
    name = request.arguments["name"]
    try:
        target = core.ref_get(tag_ref(name)).result()["target"]
        let_go(core, target, name)
    except NotFoundError:
        raise not_here(name) from None
    core.output(f"Removed tag {name}\n")
    return {"name": name}


def list_tags(request: Request, core: Core) -> dict[str, Any]:
    """List the tags that a source has."""
    from composefs_ext.aside import Aside
    from composefs_oci.sources.opening import opener_of

    aside = Aside(core)
    with core.progress("tags"), opener_of(request)(aside.tell) as source:  # a page of them is a request
        tags = aside.run(source.tags)
    core.output("".join(f"{printable(tag)}\n" for tag in tags) or "No tags found\n")
    return {"tags": tags}
