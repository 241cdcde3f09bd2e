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
_FEW = 1024
_CONTROL = 24
_read_control = struct.Struct("<QQQ").unpack_from
_SIGN = 1 << 63
_MOST_IDLE = 1000
"""Controls in a row that make nothing; a few are harmless, more are there to keep us busy."""


def add_bytes(one: bytes | memoryview, other: bytes | bytearray | memoryview) -> bytes:
    """Add two strings of the same length, at most 16 KiB, byte for byte modulo 256."""
    a = int.from_bytes(one, "little")
    b = int.from_bytes(other, "little")
    return (((a & _LOW) + (b & _LOW)) ^ ((a ^ b) & _HIGH)).to_bytes(len(one), "little")


def bspatch(old: memoryview, patch: memoryview, size: int) -> Iterator[bytes | bytearray | memoryview]:
    """Yield the new content of ``size`` bytes in pieces; raise CorruptError for a patch that does not make that."""
    left = size
    place = position = idle = 0
    end, old_end = len(patch), len(old)
    # What is to be added to what, of controls with a few bytes each: compressed files have one for every 30 bytes.
    changes, base = bytearray(), bytearray()
    while left:
        if place + _CONTROL > end:
            raise CorruptError("a patch ends before its content")
        added, literal, seek = _read_control(patch, place)
        place += _CONTROL
        count = added + literal
        if count > left or place + count > end:  # negative ones are above 2⁶³ as they are read
            raise CorruptError("a patch reaches beyond its content or its end")
        if count < _FEW:
            idle = 0 if count else idle + 1
            if idle > _MOST_IDLE:
                raise CorruptError("a patch goes on without making anything")
            changes += patch[place : place + count]
            stop = position + added
            base += old[position:stop] if position >= 0 and stop <= old_end else _window(old, position, added)
            base += bytes(literal)
            if len(changes) > _BLOCK - _FEW:
                yield _sum(memoryview(changes), base)
                changes, base = bytearray(), bytearray()
        else:
            idle = 0
            if changes:
                yield _sum(memoryview(changes), base)
                changes, base = bytearray(), bytearray()
            for start in range(0, added, _BLOCK):
                some = min(_BLOCK, added - start)
                yield _sum(patch[place + start : place + start + some], _window(old, position + start, some))
            if literal:
                yield patch[place + added : place + count]
        place += count
        position += added + (seek if seek < _SIGN else _SIGN - seek)
        left -= count
    if changes:
        yield _sum(memoryview(changes), base)
    if place != end:
        raise CorruptError("a patch goes on behind its content")


def _sum(change: memoryview, old: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
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
