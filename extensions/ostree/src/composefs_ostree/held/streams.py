"""Reading commits: their streams, and what these name besides the objects."""

from __future__ import annotations

import mmap
import os

from composefs_ext.errors import CorruptError, InputOutputError, MissingObjectError, UnsupportedError
from composefs_ext.protocol import SIZES
from composefs_ostree.formats.commit_stream import (
    CONTENT_TYPE,
    IMAGE_REF,
    PARTIAL_CONTENT_TYPE,
    CommitStream,
    commit_of_stream,
    is_partial,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from composefs_ext import Core, Stream
    from composefs_ext.connection import Pending
    from composefs_ostree.formats.gvariant import Variant

__all__ = [
    "DETACHED_REF",
    "PARENT_REF",
    "Asked",
    "detached_metadata",
    "image_of",
    "open_commit",
    "parent_of",
    "partly",
    "read_detached",
]

DETACHED_REF = "ostree.commitmeta"
PARENT_REF = "ostree.parent"
"""What a commit's stream names besides its image: streams with the detached metadata and of the parent commit."""


class Asked:
    """A commit's stream that the core was asked for, and reads while we do something else.

    ``sizes`` is the answer to come with those of its objects, if they are wanted and the core can tell.
    """

    def __init__(self, core: Core, name: str, stream_id: str | None = None, *, sizes: bool = False) -> None:
        """``name`` is the stream's, ``stream_id`` its id if it has no name yet."""
        self._core = core
        self._name = name
        by_name = name if stream_id is None else None
        self._stream = core.stream_get(name=by_name, id=stream_id, inline=True, chunks=True, object_refs=True)
        # A call of its own, and at once: the core looks for the objects while we read which they are.
        self.sizes: Pending[Stream] | None = None
        if sizes and SIZES in core.features:
            self.sizes = core.stream_get(name=by_name, id=stream_id, sizes=True).optional()

    def open(self) -> tuple[CommitStream, Stream]:
        """Wait for it, which may be here in part; raise what :func:`open_commit` does."""
        name = self._name
        commit_id = commit_of_stream(name)
        try:
            stream = self._stream.result()
        except (CorruptError, InputOutputError, MissingObjectError) as error:
            error.message = f"commit {commit_id.hex()}: {error.message}"
            raise
        wanted = PARTIAL_CONTENT_TYPE if is_partial(name) else CONTENT_TYPE
        if stream.content_type != wanted:
            raise CorruptError(
                f"stream {name} has the content type {stream.content_type}, not that of an ostree commit"
            )
        if len(stream.chunks) != 1 or stream.inline is None or not -stream.chunks[0] == stream.size > 0:
            raise CorruptError(f"stream {name} is not laid out as an ostree commit")
        path = self._core.staging.path_of(stream.inline)
        with open(path, "rb") as file:
            inline = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        os.unlink(path)
        commit = CommitStream(inline, stream.object_refs)
        if commit.commit_id != commit_id or (commit.subpaths is not None) != is_partial(name):
            raise CorruptError(f"stream {name} holds the commit {commit.commit_id.hex()}", hint="run cfsctl fsck")
        return commit, stream


def open_commit(core: Core, name: str, *, partial: bool = False) -> tuple[CommitStream, Stream]:
    """Read a commit's stream.

    Raises NotFoundError if there is none, CorruptError if it is not that commit, and UnsupportedError for a commit that
    is here in part unless ``partial`` says that this will do.
    """
    commit, stream = Asked(core, name).open()
    if commit.subpaths is not None and not partial:
        commit_id = commit.commit_id.hex()
        raise UnsupportedError(
            f"commit {commit_id} is here in part only ({partly(commit.subpaths)})",
            hint="pull it again without --subpath and --commit-metadata-only to complete it",
            subject=commit_id,
        )
    return commit, stream


def partly(subpaths: list[str]) -> str:
    """Say what is here of a commit in part."""
    return " ".join(subpaths) if subpaths else "the commit object alone"


def _named(named_refs: Iterable[tuple[str, str]], name: str) -> str | None:
    """Return the id under a name in a stream's named references, None if there is no such name."""
    return next((ref for each, ref in named_refs if each == name), None)


def image_of(stream: Stream) -> str | None:
    """Return the id of the image that a commit's stream names, None if it names none."""
    return _named(stream.named_refs, IMAGE_REF)


def parent_of(stream: Stream) -> str | None:
    """Return the id of the parent's stream that a commit's stream names, so that it is kept; None if it names none."""
    return _named(stream.named_refs, PARENT_REF)


def read_detached(core: Core, stream: Stream, commit_id: bytes) -> dict[str, Variant]:
    """Return the detached metadata that is kept with a commit; raise FormatError if it is malformed."""
    from composefs_ostree.signatures.detached import parse_detached

    what = f"the detached metadata of commit {commit_id.hex()}"
    return parse_detached(detached_metadata(core, stream.named_refs) or b"", what)


def detached_metadata(core: Core, named_refs: Iterable[tuple[str, str]]) -> bytes | None:
    """Return the serialised detached metadata (signatures) of a commit whose stream names these; None if none.

    It is empty where there was some, and all of it has been removed.
    """
    stream_id = _named(named_refs, DETACHED_REF)
    if stream_id is None:
        return None
    into = core.staging.new_name("commitmeta")
    core.stream_cat(id=stream_id, into=into).result()
    return core.staging.read(into)
