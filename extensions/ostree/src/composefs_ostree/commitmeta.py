"""Detached metadata of commits: what comes beside a commit and is no part of its id, the signatures above all.

It is fetched before the commit and kept as a stream of its own, ``ostree-commitmeta-ID``, which holds the bytes of
``.commitmeta`` (``a{sv}``) and is named by the commit's stream.  So it is there as long as the commit, and the commit's
stream has the same content with it and without.
"""

from __future__ import annotations

import os

from composefs_ext.errors import FormatError
from composefs_ostree.fetching.transport import bad_object, read
from composefs_ostree.formats.names import ObjectType, object_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Core
    from composefs_ostree.fetching.transport import Transport

__all__ = ["detached_name", "fetch_detached", "put_detached"]

_CONTENT_TYPE = "6f73747265656d64"
_PREFIX = "ostree-commitmeta-"


def detached_name(commit_id: bytes) -> str:
    """Return the name of the stream that keeps a commit's detached metadata."""
    return _PREFIX + commit_id.hex()


def fetch_detached(core: Core, transport: Transport, commit_id: bytes) -> bytes:
    """Fetch a commit's detached metadata; empty if there is none.  Raises FormatError if it is malformed."""
    from composefs_ostree.signatures.detached import MAX_DETACHED, parse_detached

    path = object_path(ObjectType.COMMITMETA, commit_id)
    where = transport.where(path)
    data = read(core, transport, path, MAX_DETACHED) or b""
    if data:
        try:
            parse_detached(data, where)
        except FormatError as error:
            raise bad_object(where, error) from None
    return data


def put_detached(core: Core, data: bytes) -> str:
    """Have detached metadata stored; return the stream's id."""
    inline = core.staging.write(data, "commitmeta")
    stored = core.stream_put(_CONTENT_TYPE, chunks=[-len(data)], inline=inline).result()
    os.unlink(core.staging.path_of(inline))
    return stored["id"]
