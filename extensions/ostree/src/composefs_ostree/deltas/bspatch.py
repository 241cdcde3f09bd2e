"""Applying a binary patch as bsdiff makes them, in the form without header and compression that deltas have.

Until the new content is complete: three numbers of 8 bytes, D, E and S (little-endian, the highest bit is the sign),
then D bytes which are added, modulo 256, to as many of the old content at the current position, then E bytes as they
are; the position moves by D + S.  Outside of the old content there are zeros.

Bytes are added 16 KiB at a time, as two numbers with 2¹⁷ bits: the low seven bits of all bytes in one addition which
no carry leaves, the eighth by exclusive or.  Most of a patch is zeros, where the old bytes are taken as they are.

Source: the format of bsdiff 4.3 as the ``bspatch`` of github.com/mendsley/bsdiff reads it.
"""

from __future__ import annotations

import struct

from composefs_ext.errors import CorruptError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["add_bytes", "bspatch"]

_BLOCK = 16 << 10
_ZEROS = bytes(_BLOCK)
_LOW = int.from_bytes(b"\x7f" * _BLOCK, "little")
_HIGH = int.from_bytes(b"\x80" * _BLOCK, "little")
_CONTROL = 24
_SIGN = 1 << 63
_MOST_IDLE = 1000
"""Controls in a row that make nothing; a few are harmless, more are there to keep us busy."""


def add_bytes(one: bytes | memoryview, other: bytes | memoryview) -> bytes:
    """Add two strings of the same length, at most 16 KiB, byte for byte modulo 256."""
    a = int.from_bytes(one, "little")
    b = int.from_bytes(other, "little")
    return (((a & _LOW) + (b & _LOW)) ^ ((a ^ b) & _HIGH)).to_bytes(len(one), "little")


def bspatch(old: memoryview, patch: memoryview, size: int) -> Iterator[bytes | memoryview]:
    """Yield the new content of ``size`` bytes in pieces; raise CorruptError for a patch that does not make that."""
    left = size
    place = position = idle = 0
    while left:
        if place + _CONTROL > len(patch):
            raise CorruptError("a patch ends before its content")
        added, literal, seek = map(_signed, struct.unpack_from("<QQQ", patch, place))
        place += _CONTROL
        if added < 0 or literal < 0 or added + literal > left or place + added + literal > len(patch):
            raise CorruptError("a patch reaches beyond its content or its end")
        idle = idle + 1 if not added + literal else 0
        if idle > _MOST_IDLE:
            raise CorruptError("a patch goes on without making anything")
        for start in range(0, added, _BLOCK):
            count = min(_BLOCK, added - start)
            change = patch[place + start : place + start + count]
            yield _sum(change, _window(old, position + start, count))
        place += added
        if literal:
            yield patch[place : place + literal]
        place += literal
        position += added + seek
        left -= added + literal
    if place != len(patch):
        raise CorruptError("a patch goes on behind its content")


def _signed(number: int) -> int:
    return number if number < _SIGN else _SIGN - number


def _sum(change: memoryview, old: bytes | memoryview) -> bytes | memoryview:
    if change == _ZEROS[: len(change)]:
        return old
    return add_bytes(change, old)


def _window(old: memoryview, start: int, count: int) -> bytes | memoryview:
    """Return ``count`` bytes from ``start`` on, which may lie outside, where everything is zero."""
    if start >= 0 and start + count <= len(old):
        return old[start : start + count]
    before = min(max(-start, 0), count)
    inside = bytes(old[max(start, 0) : max(start + count, 0)])
    return (bytes(before) + inside).ljust(count, b"\0")
