"""Finding a delta to a commit in the repository to pull from, and checking it."""

from __future__ import annotations

from hashlib import sha256

from composefs_ext.errors import CorruptError, ExtError, UnsupportedError
from composefs_ostree.deltas.listing import choose, delta_path, index_path, parse_index, summary_deltas
from composefs_ostree.fetching.blame import DAMAGED_DELTA, Blaming, blamed
from composefs_ostree.fetching.transport import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from composefs_ext import Core
    from composefs_ostree.deltas.superblock import Delta
    from composefs_ostree.fetching.transport import Transport

__all__ = ["find"]


def find(core: Core, transport: Transport, summary: bytes | None, to: bytes, held: Sequence[bytes]) -> Delta | None:
    """Return the delta to use for a commit, None if there is none.

    ``summary`` is that of the repository; without one nothing tells of deltas.  ``held`` are the ids of the complete
    commits here that a delta may be from, best first; one from scratch is used only if there are none.

    A delta that is listed and cannot be used is logged.  Raises CorruptError if its superblock, or the commit in it,
    has not the digest that it should have, FormatError if something is malformed.
    """
    if summary is None:
        return None
    if held and core.repo.objects is None:
        core.log("warning", "no delta is used: the core does not let objects be read")
        return None
    chosen = choose(_listed(core, transport, summary, to), to, held)
    if chosen is None:
        return None
    origin, digest = chosen
    path = f"{delta_path(origin, to)}/superblock"
    where = transport.where(path)
    data = read(core, transport, path)
    if data is None:
        core.log("warning", f"{where}: not found, although it is listed; objects are fetched one by one")
        return None
    try:
        return _checked(data, digest, origin, to)
    except UnsupportedError as error:
        core.log("warning", f"{where}: not used, objects are fetched one by one: {error.message}")
        return None
    except ExtError as error:
        raise blamed(where, error, DAMAGED_DELTA) from None


def _listed(core: Core, transport: Transport, summary: bytes, to: bytes) -> dict[str, bytes]:
    """Return the digests of the superblocks of deltas, of those to one commit at least, by their names."""
    with Blaming(transport.where("summary")):
        listed = summary_deltas(summary)
    if listed is not None:
        return listed
    path = index_path(to)
    data = read(core, transport, path)
    with Blaming(transport.where(path)):
        return {} if data is None else parse_index(data)


def _checked(data: bytes, digest: bytes, origin: bytes | None, to: bytes) -> Delta:
    from composefs_ostree.deltas.superblock import parse_superblock

    if sha256(data).digest() != digest:
        raise CorruptError("its checksum is not the one that is listed")
    delta = parse_superblock(data)
    if delta.to != to or delta.origin != origin:
        raise CorruptError(f"it is a delta to another commit, {delta.to.hex()}, or from another one")
    return delta
