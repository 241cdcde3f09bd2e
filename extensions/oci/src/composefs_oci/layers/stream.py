"""A layer that was taken apart as a splitstream, when its files are objects of the repository."""

from __future__ import annotations

from typing import NamedTuple

from composefs_oci.layers.unpacking import MAX_INLINE
from composefs_oci.names import LAYER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.rows import Stored
    from composefs_oci.layers.stored import Content
    from composefs_oci.layers.unpacking import Unpacked

__all__ = ["References", "most_inline", "put_layer", "references"]


class References(NamedTuple):
    """Chunks and object references as ``stream_put`` wants them, and the contents of the sparse files in order."""

    chunks: list[int]
    object_refs: list[str]
    expanded: list[Content]


def references(layer: Unpacked, ids: Sequence[str]) -> References:
    """Number the objects of a layer, ``ids`` in the order in which its files were given away; each is listed once.

    Those that only an expanded sparse file is are listed last, because no chunk names them.
    """
    numbers: dict[str, int] = {}
    chunks = [chunk if chunk < 0 else numbers.setdefault(ids[chunk], len(numbers)) for chunk in layer.chunks]
    expanded = [ids[each] if isinstance(each, int) else each for each in layer.expanded]
    extra = [each for each in expanded if isinstance(each, str)]
    return References(chunks, list(dict.fromkeys([*numbers, *extra])), expanded)


def most_inline(core: Core) -> int:
    """Return how many bytes of a layer may be in no object."""
    return core.limits.get("stream_bytes", MAX_INLINE)


def put_layer(core: Core, layer: Unpacked, parts: References) -> Pending[Stored]:
    """Have the stream of a layer stored, which has no name then."""
    inline = layer.inline if layer.inline_size else None
    return core.stream_put(LAYER, chunks=parts.chunks, object_refs=parts.object_refs, inline=inline)
