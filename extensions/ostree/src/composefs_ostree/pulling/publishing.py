"""Making visible what was pulled: all names in one call, also where another pull has made some of them meanwhile."""

from __future__ import annotations

from composefs_ext.errors import ConflictError
from composefs_ostree.formats.commit_stream import commit_of_stream
from composefs_ostree.held.refs import current_target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from composefs_ext import Core
    from composefs_ext.rows import ImageName, RefUpdate, StreamName

__all__ = ["publish"]


def publish(core: Core, streams: list[StreamName], images: Iterable[str], refs: dict[str, RefUpdate]) -> dict[str, str]:
    """Name streams, images and refs, all or none, and return the ids of the streams by their names.

    ``images`` are ids, ``refs`` by the names that users know them by.  Another pull may have done the same meanwhile;
    then there is nothing to add to it, and a stream is that one's where it keeps its name.  Raises ConflictError if it
    has done something else.
    """
    rows: list[ImageName] = [{"id": image} for image in sorted(images)]
    try:
        published = core.publish(streams=streams, images=rows, refs=list(refs.values())).result()
    except ConflictError as error:
        refs = dict(refs)
        if not _agree(core, streams, refs, error):
            raise
        published = core.publish(streams=streams, images=rows, refs=list(refs.values())).result()
    return {row["name"]: row["id"] for row in published["streams"]}


def _agree(core: Core, streams: list[StreamName], refs: dict[str, RefUpdate], error: ConflictError) -> bool:
    """Leave out the refs that somebody else has set to the same, and expect commits as they made them if as we would.

    Tells whether there were any.  Raises ConflictError for one that was set to something else.
    """
    again = "run the command again"
    before = len(refs)
    agreed = False
    for stream in streams:
        if "expect" in stream:
            here = core.stream_get(name=stream["name"]).result().id
            if here not in (stream["id"], stream["expect"]):
                commit = commit_of_stream(stream["name"]).hex()
                what = f"what is here of commit {commit} was changed by somebody else during the pull"
                raise ConflictError(what, hint=again, subject=commit) from error
            agreed |= here != stream["expect"]
            stream["expect"] = here
    for ref, row in list(refs.items()):
        now = current_target(core, ref)
        if now == row["target"]:
            del refs[ref]
        elif now != row["expect"]:
            raise ConflictError(
                f"ref {ref!r} was changed by somebody else during the pull",
                hint=f"{again} to set it to what the source has now",
                subject=ref,
            ) from error
    return agreed or len(refs) < before
