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
    from composefs_ext.rows import Published, RefRemoval, RefUpdate

__all__ = ["forget_referrers", "list_tags", "tag", "untag"]

_ATTEMPTS = 5


def forget_referrers(core: Core, name: str, now: str, published: Published) -> None:
    """Remove the refs that keep what refers to images without a tag, if one has lost this tag.

    ``now`` is the manifest's stream that the tag names since the call that answered ``published``.
    """
    [before] = (row["previous"] for row in published["refs"] if row["name"] == tag_ref(name))
    if before not in (None, now):
        _remove(core)


def _remove(core: Core, name: str | None = None, stream: str | None = None) -> None:
    """Remove an image's tag, if one is given, and the refs that keep what refers to images without a tag then.

    Who took the tag of another one may have been interrupted before its turn, or have been ``cfsctl ref remove``.
    """
    tags: list[str | RefRemoval] = [{"name": tag_ref(name), "expect": stream}] if name and stream else []
    for attempt in range(1, _ATTEMPTS + 1):
        left = _left(core, without=name)
        try:
            if tags or left:
                core.publish(remove_refs=[*tags, *(referrer_ref(*pair) for pair in left)]).result()
            break
        except NotFoundError:  # others remove them too, and were first
            if attempt == _ATTEMPTS:
                raise
    if left:
        _set_again(core, left)


def _set_again(core: Core, removed: list[tuple[str, str]]) -> None:
    """Set those removed refs again that a tag needs: who has pulled meanwhile has set them for it."""
    named = {target for _, target in held_tags(core)}
    referring = referrers_of(core)
    for subject, artifact in removed:
        referring.setdefault(subject, []).append(artifact)
    needed = set(_below(referring, named))
    for subject, artifact in removed:
        if (subject, artifact) in needed:
            ref: RefUpdate = {"name": referrer_ref(subject, artifact), "target": manifest_stream(artifact)}
            core.publish(refs=[ref]).found()  # None if a gc has taken the artifact


def _left(core: Core, without: str | None = None) -> list[tuple[str, str]]:
    """Return what refers to something, (subject, artifact), but for what is below what a tag but ``without`` names."""
    referring = referrers_of(core)  # before the tags: what is set with one meanwhile is not among them
    if not referring:
        return []
    named = {target for name, target in held_tags(core) if name != without}
    kept = set(_below(referring, named))
    every = ((subject, artifact) for subject, artifacts in referring.items() for artifact in artifacts)
    return [pair for pair in every if pair not in kept]


def _below(referring: dict[str, list[str]], streams: set[str]) -> list[tuple[str, str]]:
    """Return what refers to the manifests of these streams, as :func:`referrers_below` does."""
    return referrers_below(referring, [digest for digest in referring if manifest_stream(digest) in streams])


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
        _remove(core, name, target)
    except NotFoundError:
        _remove(core)  # this one may have been interrupted before
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
