"""The structures of a splitstream, and the bounds of what is read and written."""

from __future__ import annotations

import struct

__all__ = [
    "HEADER",
    "IMAGE_PREFIX",
    "INFO",
    "MAGIC",
    "MAX_CHUNKS",
    "MAX_INLINE",
    "MAX_NAMED_REFS",
    "MAX_NAMED_REFS_SIZE",
    "MAX_REFERENCES",
    "MAX_SIZE",
    "NUMBER",
    "PIECE",
    "names_image",
]

MAGIC = b"SplitStream"
"""How every splitstream begins."""

HEADER = struct.Struct("<11sBHBBQQ")
INFO = struct.Struct("<10Q")
NUMBER = struct.Struct("<q")

IMAGE_PREFIX = "composefs.image"
"""How a named reference begins that names an image."""

MAX_REFERENCES = 4_000_000
"""The most object references, and the most stream references, of a stream."""

MAX_NAMED_REFS = 100_000
MAX_NAMED_REFS_SIZE = 64 << 20
"""The most names of references, and bytes of them: they are compressed, so that a small file could fill the memory."""

MAX_CHUNKS = 2 * MAX_REFERENCES + 1
"""The most chunks: every object, with inline bytes before, between and behind."""

MAX_INLINE = 64 << 30
"""The most inline bytes.  Both are compressed: a small file could keep its reader busy for days."""

MAX_SIZE = (1 << 63) - 1
"""Bytes of a reassembled stream."""

PIECE = 1 << 18
"""The most inline bytes that a reader hands out, and a writer takes in, at once."""


def names_image(name: str) -> bool:
    """Tell whether a named reference names an image; all others name streams."""
    return name.startswith(IMAGE_PREFIX)
