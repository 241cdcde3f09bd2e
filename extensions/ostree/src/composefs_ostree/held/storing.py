"""Having commits stored: their streams, which name what belongs to them, and their detached metadata.

What is stored so is to be published under the name that :mod:`composefs_ostree.held` knows it by.
"""

from __future__ import annotations

import os

from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.commit_stream import CONTENT_TYPE, IMAGE_REF, PARTIAL_CONTENT_TYPE, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.rows import Stored, StreamName
    from composefs_ostree.formats.commit_stream import Entry

__all__ = ["lay_out", "metadata_limit", "put_again", "put_commit", "put_detached", "put_laid_out"]

_MAX_METADATA = 256 << 20
"""Bytes of metadata that one commit may have: they are kept in memory, and become one stream."""

_DETACHED_CONTENT_TYPE = "6f73747265656d64"
_DETACHED_PREFIX = "ostree-commitmeta-"


def metadata_limit(core: Core) -> int:
    """Return how many bytes of metadata a commit may have to be stored."""
    return min(core.limits.get("stream_bytes", _MAX_METADATA), _MAX_METADATA)


class LaidOut(NamedTuple):
    """What a commit's stream is made of; ``inline`` is a staged file with all its ``size`` bytes."""

    content_type: str
    inline: str
    size: int
    object_refs: list[str]


def put_commit(
    core: Core,
    commit_id: bytes,
    entries: Mapping[bytes, Entry],
    image: Pending[Stored] | None = None,
    *,
    named_refs: Sequence[tuple[str, str]] = (),
    subpaths: Sequence[str] | None = None,
) -> str:
    """Have a commit's stream stored; return its id.

    ``entries`` are all its objects, whose content is in the repository.  The stream names the ``image``, which the core
    may still be making, and what is in ``named_refs``; ``subpaths`` tells what a commit in part has.
    """
    return put_laid_out(core, lay_out(core, commit_id, entries, subpaths), image, named_refs=named_refs)


def lay_out(core: Core, commit_id: bytes, entries: Mapping[bytes, Entry], subpaths: Sequence[str] | None) -> LaidOut:
    """Stage what the stream of a commit has, as :func:`put_commit` does; ``entries`` are of no use any more then."""
    inline = core.staging.new_name("commit")
    with core.staging.create(inline) as file:
        size, references = write(file, commit_id, entries, subpaths)
    return LaidOut(CONTENT_TYPE if subpaths is None else PARTIAL_CONTENT_TYPE, inline, size, references)


def put_laid_out(
    core: Core, laid_out: LaidOut, image: Pending[Stored] | None, *, named_refs: Sequence[tuple[str, str]]
) -> str:
    """Have the stream stored that was laid out; return its id."""
    images = [] if image is None else [(IMAGE_REF, image)]
    stream = core.stream_put(
        laid_out.content_type,
        chunks=[-laid_out.size],
        inline=laid_out.inline,
        object_refs=laid_out.object_refs,
        named_refs=[*images, *sorted(named_refs)],  # the same id in whatever order they have come
    )
    return stream.result()["id"]


def put_again(core: Core, stream_id: str, named_refs: Sequence[tuple[str, str]]) -> str:
    """Have a held stream stored once more, with other named references; return its id."""
    held = core.stream_get(id=stream_id, inline=True, chunks=True, object_refs=True).result()
    stored = core.stream_put(
        held.content_type,
        chunks=held.chunks,
        inline=held.inline,
        object_refs=held.object_refs,
        named_refs=sorted(named_refs),  # as a pull that brings all of them stores it
    )
    return stored.result()["id"]


def put_detached(core: Core, commit_id: bytes, data: bytes) -> StreamName:
    """Have a commit's detached metadata stored; return the stream's id with the name under which to publish it."""
    inline = core.staging.write(data, "commitmeta")
    stored = core.stream_put(_DETACHED_CONTENT_TYPE, chunks=[-len(data)] if data else [], inline=inline).result()
    os.unlink(core.staging.path_of(inline))
    return {"name": _DETACHED_PREFIX + commit_id.hex(), "id": stored["id"], "if_exists": "replace"}
