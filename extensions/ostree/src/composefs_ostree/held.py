"""Commits that the composefs repository holds: finding and reading them."""

from __future__ import annotations

import mmap
import os

from composefs_ext.errors import CorruptError, NotFoundError, UsageError
from composefs_ostree.commit_stream import CONTENT_TYPE, IMAGE_REF, STREAM_PREFIX, CommitStream, stream_name
from composefs_ostree.names import ID_SIZE, is_commit_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Core, Stream

__all__ = ["REF_DIRECTORY", "commit_of_stream", "find_stream", "image_of", "open_commit", "ref_name"]

REF_DIRECTORY = "ostree"
_SHORTEST_PREFIX = 4
_LONGEST_FILE_NAME = 255


def ref_name(name: str) -> str:
    """Return an ostree ref as the core names it."""
    return f"{REF_DIRECTORY}/{name}"


def find_stream(core: Core, name: str) -> str:
    """Return the name of the stream of a held commit, given by ref, commit id or the first digits of one.

    Raises NotFoundError if there is none, UsageError if the digits fit several.
    """
    found: list[str] = []
    if _may_be_ref(name) and not is_commit_id(name):
        try:
            return core.ref_get(ref_name(name)).result()["target"]
        except NotFoundError:
            pass
    if len(name) >= _SHORTEST_PREFIX and is_commit_id(name.ljust(2 * ID_SIZE, "0")):
        found = [row["name"] for row in core.stream_list(STREAM_PREFIX + name).result()]
    if len(found) > 1:
        raise UsageError(f"{len(found)} commits begin with {name}", hint="give more digits", subject=name)
    if not found:
        raise NotFoundError(
            f"{name!r} is not a known ostree ref or valid commit ID",
            hint="cfsctl ostree images lists the refs",
            subject=name,
        )
    return found[0]


def _may_be_ref(name: str) -> bool:
    """Tell whether the core could have a ref of this name; it refuses to look for impossible ones."""
    file_name = name.replace("%", "%25").replace("/", "%2F")
    return not {"", ".", ".."}.intersection(name.split("/")) and len(file_name.encode()) <= _LONGEST_FILE_NAME


def commit_of_stream(name: str) -> bytes:
    """Return the commit id in the name of a stream; raise CorruptError if it is not the stream of an ostree commit."""
    commit = name.removeprefix(STREAM_PREFIX)
    if not name.startswith(STREAM_PREFIX) or not is_commit_id(commit):
        raise CorruptError(
            f"the stream {name!r} is not an ostree commit", hint="another program made this ref; remove it"
        )
    return bytes.fromhex(commit)


def open_commit(core: Core, name: str) -> tuple[CommitStream, Stream]:
    """Read a commit's stream by name; NotFoundError if there is none, CorruptError if it is not that commit."""
    stream = core.stream_get(name=name, inline=True, chunks=True, object_refs=True).result()
    if stream.content_type != CONTENT_TYPE:
        raise CorruptError(f"stream {name} has the content type {stream.content_type}, not that of an ostree commit")
    if len(stream.chunks) != 1 or stream.inline is None or -stream.chunks[0] != stream.size:
        raise CorruptError(f"stream {name} is not laid out as an ostree commit")
    path = core.staging.path_of(stream.inline)
    with open(path, "rb") as file:
        inline = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    os.unlink(path)
    commit = CommitStream(inline, stream.object_refs)
    if stream_name(commit.commit) != name:
        raise CorruptError(f"stream {name} holds the commit {commit.commit.hex()}", hint="run cfsctl fsck")
    return commit, stream


def image_of(stream: Stream) -> str | None:
    """Return the id of the image that a commit's stream names, None if it names none."""
    return next((ref for name, ref in stream.named_refs if name == IMAGE_REF), None)
