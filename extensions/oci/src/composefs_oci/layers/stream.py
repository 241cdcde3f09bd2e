"""A layer that was taken apart as a splitstream, when its files are objects of the repository."""

from __future__ import annotations

from composefs_oci.names import LAYER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.rows import Stored
    from composefs_oci.layers.unpacking import Unpacked

__all__ = ["most_inline", "put_layer", "references"]

_MAX_INLINE = 4 << 30


def references(layer: Unpacked, ids: Sequence[str]) -> tuple[list[int], list[str]]:
    """Return chunks and object references as ``stream_put`` wants them: each object of a layer is listed once.

    ``ids`` are in the order in which its files were given away.  Those that only an expanded sparse file is are listed
    last, because no chunk names them.
    """
    numbers: dict[str, int] = {}
    chunks = [chunk if chunk < 0 else numbers.setdefault(ids[chunk], len(numbers)) for chunk in layer.chunks]
    return chunks, list(dict.fromkeys([*numbers, *(ids[each] for each in layer.expanded)]))


def most_inline(core: Core) -> int:
    """Return how many bytes of a layer may be in no object."""
    return core.limits.get("stream_bytes", _MAX_INLINE)


def put_layer(core: Core, layer: Unpacked, ids: Sequence[str]) -> Pending[Stored]:
    """Have the stream of a layer stored, which has no name then."""
    chunks, object_refs = references(layer, ids)
    return core.stream_put(
        LAYER, chunks=chunks, object_refs=object_refs, inline=layer.inline if layer.inline_size else None
    )
