"""Flatpak's summary index, and how a summary of an architecture becomes the next one.

``summary.idx`` is ``(a{s(ayaaya{sv})}a{sv})``: for each *subset* (an architecture, with or without the name of a
selection before it) the SHA-256 of its summary, those of earlier ones, and metadata; then metadata of the repository.
The summary itself, of the same format as that of the whole repository, is ``summaries/HEX.gz``; from an earlier one it
can also be made with ``summaries/OLD-NEW.delta``, a gzip file of ``xadf``, a count (u32), that many operations (u32)
and the bytes that are new.  An operation is a length in its lower 28 bits and above them 0 (copy that much of the old
one), 1 (skip it) or 2 (take it from the new bytes).  All integers are little-endian.

Source: flatpak's flatpak-utils.c and flatpak-repo-utils.c, and what ``flatpak build-update-repo`` writes.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from composefs_ext.errors import FormatError, TooLargeError
from composefs_ostree.formats.names import ID_SIZE, MAX_METADATA
from composefs_ostree.formats.summary import SUMMARY_TYPE

__all__ = ["Subset", "apply_summary_delta", "gunzip", "parse_index"]

_INDEX_TYPE = "(a{s(ayaaya{sv})}a{sv})"
_MAGIC = b"xadf"
_REUSE, _SKIP, _NEW = range(3)
_MAX_OPERATIONS = 1 << 20


class Subset(NamedTuple):
    """What the index says of a subset: the raw SHA-256 of its summary, and of earlier ones."""

    digest: bytes
    history: tuple[bytes, ...]

    @property
    def path(self) -> str:
        """The path of the summary."""
        return f"summaries/{self.digest.hex()}.gz"

    def delta_path(self, old: bytes) -> str:
        """Return the path of what makes the summary of an old one."""
        return f"summaries/{old.hex()}-{self.digest.hex()}.delta"


def parse_index(data: bytes) -> tuple[dict[str, Subset], bytes]:
    """Return the subsets by name, and the repository's metadata as a summary without refs; raise FormatError."""
    from composefs_ostree.formats import gvariant

    rows, metadata = gvariant.decode(_INDEX_TYPE, data)
    subsets = {}
    for name, (digest, history, _) in rows.items():
        if any(len(each) != ID_SIZE for each in (digest, *history)):
            raise FormatError(f"malformed summary index: the subset {name[:80]!a} has a digest of another size")
        subsets[name] = Subset(digest, tuple(history))
    return subsets, gvariant.encode(SUMMARY_TYPE, ([], metadata))


def gunzip(data: bytes, limit: int = MAX_METADATA) -> bytes:
    """Inflate one gzip member; raise FormatError if it is none, TooLargeError if more than ``limit`` bytes come out."""
    inflater = zlib.decompressobj(wbits=31)
    try:
        inflated = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise FormatError(f"it is not gzip: {error}") from None
    if len(inflated) > limit:
        raise TooLargeError(f"it inflates to more than {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise FormatError("it is not one gzip member")
    return inflated


def apply_summary_delta(old: bytes, delta: bytes, limit: int = MAX_METADATA) -> bytes:
    """Make a summary of an old one and an inflated delta; raise FormatError for a malformed delta.

    The result is right if it has the digest that it should have, which the caller checks.
    """
    start = len(_MAGIC) + 4
    if len(delta) < start or not delta.startswith(_MAGIC):
        raise FormatError("malformed summary delta: its first bytes are not those of one")
    (count,) = struct.unpack_from("<I", delta, len(_MAGIC))
    data = start + 4 * count
    if count > _MAX_OPERATIONS or data > len(delta):
        raise FormatError("malformed summary delta: it is shorter than its operations")
    parts = []
    size = position = 0
    for (operation,) in struct.iter_unpack("<I", delta[start:data]):
        kind, length = operation >> 28, operation & 0xFFFFFFF
        if kind == _NEW:
            part = delta[data : data + length]
            data += length
        elif kind in (_REUSE, _SKIP):
            part = old[position : position + length]
            position += length
        else:
            raise FormatError(f"malformed summary delta: there is no operation {kind}")
        if len(part) != length:
            raise FormatError("malformed summary delta: an operation goes beyond what there is")
        if kind == _SKIP:
            continue
        size += length
        if size > limit:
            raise TooLargeError(f"the summary delta makes more than {limit} bytes")
        parts.append(part)
    return b"".join(parts)
