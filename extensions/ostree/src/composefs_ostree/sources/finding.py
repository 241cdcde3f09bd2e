"""Finding a commit in the repository to pull from: by its ref, its object, and the detached metadata beside that."""

from __future__ import annotations

from composefs_ext.errors import CorruptError, NotFoundError
from composefs_ostree.fetching.blame import Blaming, blamed
from composefs_ostree.fetching.transport import read
from composefs_ostree.formats.names import (
    MAX_DETACHED,
    MAX_METADATA,
    MAX_REF_FILE,
    ObjectType,
    check_ref,
    is_commit_id,
    object_path,
    parse_checksum_line,
)
from composefs_ostree.formats.summary import SummaryRef, find_ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Core
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.formats.objects import Commit
    from composefs_ostree.sources.source import Source

__all__ = ["fetch_commit", "fetch_detached", "fetch_object", "resolve"]


def resolve(core: Core, source: Source, transport: Transport, name: str) -> SummaryRef:
    """Find the commit that a ref or commit id names; the ref is of the remote's collection, if it has one.

    A repository with a summary lists all its refs there; only without one are refs looked for by name.
    """
    if is_commit_id(name):
        return SummaryRef(bytes.fromhex(name), MAX_METADATA)
    check_ref(name)
    collection = source.remote.collection_id if source.remote is not None else None
    summary = source.summaries.for_ref(name)
    if summary is not None:
        where = transport.where("summary")
        with Blaming(where):
            found = find_ref(summary, name, collection, source.heading())
        if found is None:
            selection = source.remote.selection if source.remote is not None else None
            of = f" of collection {collection}" if collection else ""
            inside = f" in its subset {selection}" if selection else ""
            raise NotFoundError(
                f"{where}: the repository has no ref {name!r}{of}{inside}",
                hint="check the name, and the remote's xa.subset"
                if selection
                else "check the name; a ref that is newer than the summary needs ostree summary -u there",
                subject=name,
            )
        return found
    path = f"refs/heads/{name}" if collection is None else f"refs/mirrors/{collection}/{name}"
    data = read(core, transport, path, MAX_REF_FILE)
    if data is None and collection is not None:
        path = f"refs/heads/{name}"  # of the repository's own collection, which the commit's binding will tell
        data = read(core, transport, path, MAX_REF_FILE)
    if data is None:
        raise NotFoundError(
            f"{transport.where(path)}: the repository has no ref {name!r}",
            hint="check the name; there, ostree refs shows them",
            subject=name,
        )
    return SummaryRef(parse_checksum_line(data, transport.where(path)), MAX_METADATA)


def fetch_object(
    core: Core, transport: Transport, kind: ObjectType, object_id: bytes, limit: int = MAX_METADATA
) -> bytes | None:
    """Fetch the bytes of a metadata object and check them against its id; None if there is no such object."""
    from hashlib import sha256

    path = object_path(kind, object_id)
    data = read(core, transport, path, limit)
    if data is not None and sha256(data).digest() != object_id:
        raise blamed(transport.where(path), CorruptError("its checksum does not match its name"))
    return data


def fetch_commit(core: Core, transport: Transport, commit_id: bytes, limit: int) -> tuple[bytes, Commit]:
    """Fetch, verify and parse a commit object of up to ``limit`` bytes; return its bytes too."""
    from composefs_ostree.formats.objects import parse_commit

    data = fetch_object(core, transport, ObjectType.COMMIT, commit_id, limit)
    where = transport.where(object_path(ObjectType.COMMIT, commit_id))
    if data is None:
        raise NotFoundError(
            f"{where}: the repository does not have the commit {commit_id.hex()}",
            hint="it may have been deleted, be on its way there, or be refused to you; "
            "pull its ref, try again later, or give the remote a login",
            subject=commit_id.hex(),
        )
    with Blaming(where):
        return data, parse_commit(data)


def fetch_detached(core: Core, transport: Transport, commit_id: bytes) -> bytes | None:
    """Fetch a commit's detached metadata; None if there is none.  Raises FormatError if it is malformed."""
    path = object_path(ObjectType.COMMITMETA, commit_id)
    where = transport.where(path)
    data = read(core, transport, path, MAX_DETACHED)
    if data:
        from composefs_ostree.signatures.detached import parse_detached

        with Blaming(where):
            parse_detached(data, where)
    return data
