"""Small splitstreams, in memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence

from composefs.digest import Algorithm
from composefs.splitstream import write

__all__ = ["stream_of"]


def stream_of(
    algorithm: Algorithm,
    *,
    content_type: int,
    named_refs: Sequence[tuple[str, str]] = (),
    object_refs: Sequence[str] = (),
    chunks: Iterable[int] = (),
    inline: bytes = b"",
    object_size: Callable[[str], int] = lambda _id: 0,
) -> bytes:
    """Return the bytes of a splitstream that has these parts."""
    out = io.BytesIO()
    write(
        out,
        algorithm,
        content_type=content_type,
        named_refs=named_refs,
        object_refs=object_refs,
        chunks=chunks,
        inline=io.BytesIO(inline),
        object_size=object_size,
    )
    return out.getvalue()
