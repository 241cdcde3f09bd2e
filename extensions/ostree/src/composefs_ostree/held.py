"""Commits that the composefs repository holds: finding and reading them, and what their streams name.

A whole commit is the stream ``ostree-commit-ID``, one that is here in part ``ostree-partial-ID``.  A commit's stream
names what belongs to it: its image (none if only the commit object is here), its detached metadata, and, if it was
pulled with ``--depth``, its parent's stream.

Detached metadata is what comes beside a commit and is no part of its id, the signatures above all.  It is kept as a
stream of its own, ``ostree-commitmeta-ID``, which holds the bytes of ``.commitmeta`` (``a{sv}``).  So it is there as
long as the commit, and the commit's stream has the same content with it and without.
"""

from __future__ import annotations

import mmap
import os

from composefs_ext.errors import (
    CorruptError,
    InputOutputError,
    MissingObjectError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from composefs_ext.protocol import SIZES
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.commit_stream import (
    CONTENT_TYPE,
    IMAGE_REF,
    PARTIAL_CONTENT_TYPE,
    PARTIAL_PREFIX,
    STREAM_PREFIX,
    CommitStream,
)
from composefs_ostree.formats.names import ID_SIZE, is_commit_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from composefs_ext import Core, Stream
    from composefs_ext.connection import Pending
    from composefs_ext.rows import RefRow

__all__ = [
    "DETACHED_REF",
    "PARENT_REF",
    "REF_DIRECTORY",
    "Asked",
    "Here",
    "commit_of_stream",
    "current_target",
    "detached_metadata",
    "find_stream",
    "hint_for",
    "image_of",
    "is_partial",
    "open_commit",
    "parent_of",
    "partly",
    "ref_name",
    "target_of",
]

REF_DIRECTORY = "ostree"
DETACHED_REF = "ostree.commitmeta"
PARENT_REF = "ostree.parent"
"""What a commit's stream names besides its image: streams with the detached metadata and of the parent commit."""

_SHORTEST_PREFIX = 4
_LONGEST_FILE_NAME = 255


class Here(NamedTuple):
    """A commit that is stored: name and id of its stream, its image, what it has (None: all), if it is in part.

    The numbers are how much came from the source that it was brought from.
    """

    name: str
    stream: str
    image: str | None
    subpaths: Sequence[str] | None
    metadata: int = 0
    files: int = 0
    parts: int = 0


def ref_name(name: str) -> str:
    """Return an ostree ref as the core names it; raise UsageError for an empty one.

    Other names than ostree's are taken, as composefs-rs takes them.
    """
    if not name:
        raise UsageError("a ref's name cannot be empty")
    return f"{REF_DIRECTORY}/{name}"


def current_target(core: Core, ref: str | None) -> str | None:
    """Return the name of the stream that a ref names now, None if there is no such ref, or none is asked for."""
    return None if ref is None else target_of(core.ref_get(ref_name(ref)))


def target_of(answer: Pending[RefRow]) -> str | None:
    """Return the name in the answer to ``ref.get``, None if there is no such ref."""
    try:
        return answer.result()["target"]
    except NotFoundError:
        return None


def find_stream(core: Core, name: str) -> str:
    """Return the name of the stream of a held commit, given by ref, commit id or the first digits of one.

    Each ``^`` behind it means the parent, as in ostree.  Raises NotFoundError if there is none, UsageError if the
    digits fit several.
    """
    if _may_be_ref(name) and not is_commit_id(name):
        target = current_target(core, name)
        if target is not None:
            return target
    if name.endswith("^"):
        return _parent_of(core, name[:-1])
    found: dict[str, str] = {}
    if len(name) >= _SHORTEST_PREFIX and is_commit_id(name.ljust(2 * ID_SIZE, "0")):
        for prefix in (STREAM_PREFIX, PARTIAL_PREFIX):
            for row in core.stream_list(prefix + name).result():
                found.setdefault(row["name"].removeprefix(prefix), row["name"])  # the whole commit, where it is here
    if len(found) > 1:
        raise UsageError(f"{len(found)} commits begin with {name}", hint="give more digits", subject=name)
    if not found:
        raise NotFoundError(
            f"{name!r} is not a known ostree ref or valid commit ID", hint=hint_for(core, name), subject=name
        )
    return next(iter(found.values()))


def hint_for(core: Core, name: str) -> str:
    """Tell who names no ref what to do.

    A remote's is called REMOTE:REF, which ostree finds by REF too; `cfsctl ref list` shows each with its directory.
    """
    refs = [row["name"].removeprefix(f"{REF_DIRECTORY}/") for row in core.ref_list(f"{REF_DIRECTORY}/").result()]
    meant = [ref for ref in refs if name in (ref.partition(":")[2], ref_name(ref))]
    return f"did you mean {' or '.join(meant)}?" if meant else "cfsctl ostree images lists the refs"


def _parent_of(core: Core, child: str) -> str:
    from composefs_ostree.tree import load_commit

    held, _ = open_commit(core, find_stream(core, child), partial=True)
    parent = load_commit(held).parent
    if parent is None:
        raise NotFoundError(f"the commit {child!r} has no parent", subject=child)
    try:
        return find_stream(core, parent.hex())
    except NotFoundError as error:
        raise NotFoundError(
            f"the parent of {child!r}, commit {parent.hex()}, is not here",
            hint=f"it was not pulled (pull {child} again with --depth=1), or cfsctl gc has removed it",
            subject=parent.hex(),
        ) from error


def _may_be_ref(name: str) -> bool:
    """Tell whether the core could have a ref of this name; it refuses to look for impossible ones."""
    file_name = name.replace("%", "%25").replace("/", "%2F")
    return not {"", ".", ".."}.intersection(name.split("/")) and len(file_name.encode()) <= _LONGEST_FILE_NAME


def is_partial(name: str) -> bool:
    """Tell from the name of a stream whether its commit is here in part only."""
    return name.startswith(PARTIAL_PREFIX)


def commit_of_stream(name: str) -> bytes:
    """Return the commit id in the name of a stream; raise CorruptError if it is not the stream of an ostree commit."""
    for prefix in (STREAM_PREFIX, PARTIAL_PREFIX):
        if name.startswith(prefix) and is_commit_id(name.removeprefix(prefix)):
            return bytes.fromhex(name.removeprefix(prefix))
    raise CorruptError(f"the stream {name!r} is not an ostree commit", hint="another program made this ref; remove it")


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

    def open(self, *, partial: bool = False) -> tuple[CommitStream, Stream]:
        """Wait for it; raise what :func:`open_commit` does."""
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
        if len(stream.chunks) != 1 or stream.inline is None or -stream.chunks[0] != stream.size:
            raise CorruptError(f"stream {name} is not laid out as an ostree commit")
        path = self._core.staging.path_of(stream.inline)
        with open(path, "rb") as file:
            inline = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        os.unlink(path)
        commit = CommitStream(inline, stream.object_refs)
        if commit.commit_id != commit_id or (commit.subpaths is not None) != is_partial(name):
            raise CorruptError(f"stream {name} holds the commit {commit.commit_id.hex()}", hint="run cfsctl fsck")
        if commit.subpaths is not None and not partial:
            raise UnsupportedError(
                f"commit {commit_id.hex()} is here in part only ({partly(commit.subpaths)})",
                hint="pull it again without --subpath and --commit-metadata-only to complete it",
                subject=commit_id.hex(),
            )
        return commit, stream


def open_commit(core: Core, name: str, *, partial: bool = False) -> tuple[CommitStream, Stream]:
    """Read a commit's stream.

    Raises NotFoundError if there is none, CorruptError if it is not that commit, and UnsupportedError for a commit that
    is here in part unless ``partial`` says that this will do.
    """
    return Asked(core, name).open(partial=partial)


def partly(subpaths: list[str]) -> str:
    """Say what is here of a commit in part."""
    return " ".join(subpaths) if subpaths else "the commit object alone"


def _named(stream: Stream, name: str) -> str | None:
    """Return the id under a name in a stream's named references, None if there is no such name."""
    return next((ref for each, ref in stream.named_refs if each == name), None)


def image_of(stream: Stream) -> str | None:
    """Return the id of the image that a commit's stream names, None if it names none."""
    return _named(stream, IMAGE_REF)


def parent_of(stream: Stream) -> str | None:
    """Return the id of the parent's stream that a commit's stream names, so that it is kept; None if it names none."""
    return _named(stream, PARENT_REF)


def detached_metadata(core: Core, stream: Stream) -> bytes:
    """Return the serialised detached metadata (signatures) that is kept with a commit; empty if there is none."""
    stream_id = _named(stream, DETACHED_REF)
    if stream_id is None:
        return b""
    into = core.staging.new_name("commitmeta")
    core.stream_cat(id=stream_id, into=into).result()
    return core.staging.read(into)
