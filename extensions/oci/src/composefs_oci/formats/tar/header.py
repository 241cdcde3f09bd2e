r"""The 512-byte block that begins every member of a tar archive.

=======  ====  ==========================  =======  ====  ==========================
offset   size  field                       offset   size  field
=======  ====  ==========================  =======  ====  ==========================
0        100   name                        257      6     magic ``ustar\0``
100      8     mode                        263      2     version ``00``
108      8     uid                         265      64    user and group name
116      8     gid                         329      8     device major
124      12    size                        337      8     device minor
136      12    mtime                       345      155   prefix of the name
148      8     checksum                    386      96    old GNU: 4 × (offset, size)
156      1     type                        482      1     old GNU: more of those follow
157      100   name of the link's target   483      12    old GNU: expanded size
=======  ====  ==========================  =======  ====  ==========================

Numbers are octal text or, with the first bit set, big-endian two's complement (GNU's base-256).
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple
from zlib import adler32

from composefs_ext.errors import FormatError

__all__ = ["BLOCK", "ZERO", "Header", "number", "padding", "parse_header"]

BLOCK = 512
ZERO = bytes(BLOCK)
"""Two of these end an archive."""

_FIELDS = Struct("100s8s8s8s12s12s8sc100s8s64s8s8s155s12x")
_POSIX = b"ustar\x0000"
_CACHED = 4096
_BITS = 63
"""Those of a number, beside its sign: an image has no more for a time, and less for all else."""


class Header(NamedTuple):
    """A header's fields, numbers decoded; texts end before their first NUL.  ``name`` has the prefix before it."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    link: bytes
    major: int
    minor: int


def padding(size: int) -> int:
    """Return how many bytes come after a content of this size, up to the next block."""
    return -size & (BLOCK - 1)


def parse_header(block: bytes) -> Header:
    """Parse a block that is not all zero.  Raises FormatError for a wrong checksum or number."""
    name, mode, uid, gid, size, mtime, check, kind, link, magic, _, major, minor, prefix = _FIELDS.unpack(block)
    # The sum of the bytes is what adler32 has in its low half, plus one, as long as it is below 65521: half a block's
    # always is.  sum() takes eight times as long, which would be a third of the time for an entry.
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    expected = _sums.get(check)
    if expected is None:
        expected = _expected_sum(check)
    # Some old programs added up signed bytes.
    if total != expected and sum(byte - 256 if byte > 127 else byte for byte in block) != expected:
        raise FormatError(f"a tar header has a wrong checksum ({_shown(name)})")
    name = name.partition(b"\0")[0]
    if magic == _POSIX and prefix[0]:
        name = prefix.partition(b"\0")[0] + b"/" + name
    numbers = _numbers
    try:
        # Few different values, many times: looking them up costs a quarter of decoding them.
        return Header(
            name,
            numbers[mode] if mode in numbers else _cached(mode),
            numbers[uid] if uid in numbers else _cached(uid),
            numbers[gid] if gid in numbers else _cached(gid),
            number(size),
            numbers[mtime] if mtime in numbers else _cached(mtime),
            kind,
            link.partition(b"\0")[0],
            numbers[major] if major in numbers else _cached(major),
            numbers[minor] if minor in numbers else _cached(minor),
        )
    except FormatError as error:
        raise FormatError(f"{_shown(name)}: {error.message}") from None


def number(field: bytes) -> int:
    """Decode a numeric field; one without digits is 0, and behind a NUL nothing counts.  Raises FormatError."""
    digits = field[:-1]
    if not digits.isdigit() or field[-1] not in b"\0 ":
        if field[0] & 0x80:
            bits = 8 * len(field) - 1
            value = int.from_bytes(field, "big") & ((1 << bits) - 1)
            if field[0] & 0x40:
                value -= 1 << bits
            if value.bit_length() > _BITS:
                raise FormatError(f"the number {value} in a tar header has more than {_BITS} bits")
            return value
        digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
        if not digits:
            return 0
        if not digits.isdigit():
            raise FormatError(f"{field!r} in a tar header is not a number")
    try:
        return int(digits, 8)
    except ValueError:
        raise FormatError(f"{field!r} in a tar header is not an octal number") from None


_numbers: dict[bytes, int] = {}
_sums: dict[bytes, int] = {}


def _cached(field: bytes) -> int:
    if len(_numbers) >= _CACHED:
        _numbers.clear()
    value = _numbers[field] = number(field)
    return value


def _expected_sum(check: bytes) -> int | None:
    """Return what all bytes of a block with this checksum field should add up to; None if it is not a number.

    The checksum was made with spaces in its place.
    """
    if len(_sums) >= _CACHED:
        _sums.clear()
    try:
        value = _sums[check] = number(check) + sum(check) - 8 * 0x20
    except FormatError:
        return None
    return value


def _shown(name: bytes) -> str:
    return ascii(name.partition(b"\0")[0])[2:-1] or "no name"
