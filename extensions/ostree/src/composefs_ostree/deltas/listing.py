"""Which deltas a repository has: their names, paths and digests, and the choice among them.

The summary's metadata or, with ``ostree.summary.indexed-deltas`` there, an index file for each new commit has the key
``ostree.static-deltas``: ``a{sv}`` from the name of a delta to the SHA-256 of its superblock.  The name is ``FROM-TO``
or ``TO``, in hexadecimal digits; file names have base64 without ``=`` and with ``_`` for ``/``.

Source: ostree-core.c (``_ostree_get_relative_static_delta_path``) and ostree-repo-static-delta-core.c of libostree.
"""

from __future__ import annotations

from base64 import b64decode, b64encode

from composefs_ext.errors import FormatError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.names import ID_SIZE
from composefs_ostree.formats.summary import split_summary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["choose", "delta_name", "delta_path", "index_path", "parse_index", "summary_deltas"]

_KEY = "ostree.static-deltas"
_INDEXED = "ostree.summary.indexed-deltas"


def delta_path(origin: bytes | None, to: bytes) -> str:
    """Return a delta's directory in a repository; ``origin`` is None for a delta from scratch."""
    name = _encode(to) if origin is None else f"{_encode(origin)}-{_encode(to)}"
    return f"deltas/{name[:2]}/{name[2:]}"


def delta_name(directory: str) -> str | None:
    """Return the name of a delta by that of its directory, both parts joined; None if it is none's."""
    ids = []
    for part in directory.split("-"):
        try:
            commit = b64decode(part.replace("_", "/") + "=", validate=True)
        except ValueError:
            return None
        if len(commit) != ID_SIZE:
            return None
        ids.append(commit.hex())
    return "-".join(ids) if len(ids) <= 2 else None


def index_path(to: bytes) -> str:
    """Return the path of the index of all deltas to a commit."""
    name = _encode(to)
    return f"delta-indexes/{name[:2]}/{name[2:]}.index"


def _encode(commit: bytes) -> str:
    return b64encode(commit).decode().rstrip("=").replace("/", "_")


def summary_deltas(summary: bytes) -> dict[str, bytes] | None:
    """Return the digests of superblocks by the delta's name, None if there are indexes that tell them.

    Raises FormatError for a malformed summary.
    """
    metadata = gvariant.decode("a{sv}", split_summary(summary)[1])
    indexed = metadata.get(_INDEXED)
    return None if indexed is not None and indexed.value is True else _digests(metadata, "summary")


def parse_index(data: bytes) -> dict[str, bytes]:
    """Return the digests of superblocks by the delta's name; raise FormatError for a malformed index."""
    return _digests(gvariant.decode("a{sv}", data), "delta index")


def _digests(metadata: dict[str, gvariant.Variant], what: str) -> dict[str, bytes]:
    listed = metadata.get(_KEY, gvariant.Variant("a{sv}", {}))
    if listed.signature != "a{sv}":
        raise FormatError(f"malformed {what}: {_KEY} is not a dictionary")
    for name, digest in listed.value.items():
        if digest.signature != "ay" or len(digest.value) != ID_SIZE:
            raise FormatError(f"malformed {what}: the digest of the delta {name[:160]!a} does not have {ID_SIZE} bytes")
    return {name: digest.value for name, digest in listed.value.items()}


def choose(digests: dict[str, bytes], to: bytes, held: Sequence[bytes]) -> tuple[bytes | None, bytes] | None:
    """Choose a delta to a commit: from the first of the held commits that has one, or, if none is held, from scratch.

    Returns the commit that it is from (None: scratch) and the digest of its superblock; None if there is no delta.
    """
    for origin in held:
        digest = digests.get(f"{origin.hex()}-{to.hex()}")
        if digest is not None:
            return origin, digest
    digest = None if held else digests.get(to.hex())
    return None if digest is None else (None, digest)
