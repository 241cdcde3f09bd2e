"""``dump``, ``compute-id`` and ``mount``: a commit as one tree."""

from __future__ import annotations

from composefs_ext import commands
from composefs_ext.errors import NotFoundError
from composefs_ostree.formats.commit_stream import commit_of_stream
from composefs_ostree.held.refs import find_stream
from composefs_ostree.held.streams import image_of, open_commit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ext import Core, Request

__all__ = ["compute_id", "dump", "mount"]


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


def _draft_dump(request: Request, core: Core) -> tuple[str, str | None]:
    """Write the dump of the commit that the request names; return the names of staged file and draft."""
    from composefs_ostree.commands.compat import wants_nul
    from composefs_ostree.held.dumptext import draft_dump
    from composefs_ostree.held.tree import load

    commit, _ = open_commit(core, find_stream(core, request.arguments["ref"]), partial=True)
    return draft_dump(core, load(commit), keep_nul=bool(wants_nul(request)))


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
