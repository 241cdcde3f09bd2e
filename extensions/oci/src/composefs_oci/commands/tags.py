"""``tag``, ``untag`` and ``list-tags``."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError
from composefs_ext.text import printable
from composefs_oci.held import find_manifest, held_tags, not_here, referrers_below, referrers_of
from composefs_oci.names import manifest_stream, referrer_ref, tag_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request
    from composefs_ext.rows import Published, RefRemoval

__all__ = ["forget_referrers", "list_tags", "tag", "untag"]

_ATTEMPTS = 5


def forget_referrers(core: Core, name: str, now: str, published: Published) -> None:
    """Remove the refs that keep the referrers of the image that had a tag before, if that was its last one.

    ``now`` is the manifest's stream that the tag names since the call that answered ``published``.
    """
    [before] = (row["previous"] for row in published["refs"] if row["name"] == tag_ref(name))
    if before not in (None, now):
        _remove(core, before)


def _remove(core: Core, stream: str, name: str | None = None) -> None:
    """Remove an image's tag, if one is given, and with its last one the refs that keep its referrers."""
    tags: list[str | RefRemoval] = [{"name": tag_ref(name), "expect": stream}] if name else []
    for attempt in range(1, _ATTEMPTS + 1):
        left = _left(core, stream, without=name)
        try:
            if tags or left:
                core.publish(remove_refs=[*tags, *left]).result()
            if left and stream in dict(held_tags(core)).values():  # who pulls it meanwhile has set them for this tag
                again = [(ref, manifest_stream(ref.rpartition("/")[2])) for ref in left]
                core.publish(refs=[{"name": ref, "target": target} for ref, target in again]).result()
            return
        except NotFoundError:  # others take tags from it too, and were first
            if attempt == _ATTEMPTS:
                raise


def _left(core: Core, stream: str, without: str | None = None) -> list[str]:
    """Return the refs of what refers to an image, and to that, but for those below what a tag but ``without`` names."""
    referring = referrers_of(core)  # before the tags: what is set with one meanwhile is not among them
    if not referring:
        return []
    named = {target for name, target in held_tags(core) if name != without}
    gone, kept = (
        referrers_below(referring, [digest for digest in referring if manifest_stream(digest) in streams])
        for streams in ({stream}, named)
    )
    return [referrer_ref(*pair) for pair in gone if pair not in set(kept)]


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
        _remove(core, target, name)
    except NotFoundError:
        raise not_here(name) from None
    core.output(f"Removed tag {name}\n")
    return {"name": name}


def list_tags(request: Request, core: Core) -> dict[str, Any]:
    """List the tags that a source has."""
    from composefs_oci.sources.opening import open_requested

    with core.progress("tags"), open_requested(request, core) as source:  # a page of them is a request
        tags = source.tags()
    core.output("".join(f"{printable(tag)}\n" for tag in tags) or "No tags found\n")
    return {"tags": tags}
