"""Small splitstreams, in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence

from composefs.digest import Algorithm
from composefs.splitstream import Parts, write

__all__ = ["stream_of"]


def stream_of(
    algorithm: Algorithm,
    *,
    content_type: int,
    named_refs: Sequence[tuple[str, str]] = (),
    object_refs: Sequence[str] = (),
    chunks: Sequence[int] = (),
    inline: bytes = b"",
    sizes: Sequence[int] | None = None,
) -> bytes:
    """Return the bytes of a splitstream that has these parts; without ``sizes``, the objects have none."""
    out = io.BytesIO()
    parts = Parts(content_type, inline, chunks, object_refs, named_refs)
    write(out, algorithm, parts, [0] * len(object_refs) if sizes is None else sizes)
    return out.getvalue()
