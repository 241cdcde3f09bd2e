"""Applying a binary patch as bsdiff makes them, in the form without header and compression that deltas have.

Until the new content is complete: three numbers of 8 bytes, D, E and S (little-endian, the highest bit is the sign),
then D bytes which are added, modulo 256, to as many of the old content at the current position, then E bytes as they
are; the position moves by D + S.  Outside of the old content there are zeros.

Most of what is to be added is zeros, where the old bytes are taken as they are.  Other bytes are added 16 KiB at a
time, as two numbers with 2¹⁷ bits: the low seven bits of all bytes in one addition which no carry leaves, the eighth by
exclusive or.

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
_WINDOW = 64 << 10
"""Bytes of a patch that are read at a time; as much may wait to be yielded."""

_FEW = 256
_NOTHING = [bytes(count) for count in range(_FEW)]
"""What adds nothing to a few bytes, by their number."""

_WHOLE = 1 << 20
"""Bytes of an old content that is copied: from such a copy, a few are taken faster than from a mapped file."""

_CONTROL = 24
_read_control = struct.Struct("<QQQ").unpack_from
_SIGN = 1 << 63
_MOST_IDLE = 1000
"""By how many more than the content has bytes the controls may outnumber the bytes they make.

Each of bsdiff's controls takes it on by a byte of the content at least, but many are empty where that repeats itself.
More are there to keep us busy.
"""


def add_bytes(one: bytes | bytearray | memoryview, other: bytes | bytearray | memoryview) -> bytes:
    """Add two strings of the same length, at most 16 KiB, byte for byte modulo 256."""
    a = int.from_bytes(one, "little")
    b = int.from_bytes(other, "little")
    return (((a & _LOW) + (b & _LOW)) ^ ((a ^ b) & _HIGH)).to_bytes(len(one), "little")


def bspatch(old: memoryview, patch: memoryview, size: int) -> Iterator[bytes | memoryview]:
    """Yield the new content of ``size`` bytes in pieces; raise CorruptError for a patch that does not make that."""
    left = size
    position = idle = 0
    most_idle = _MOST_IDLE + size
    patch_end, old_end = len(patch), len(old)
    # Not where nothing is made: a few bytes of a program can ask for that millions of times.
    source = bytes(old) if size and old_end <= _WHOLE else old
    # The window: a part of the patch, where it starts, the place in it, its end and the last place for a control.
    window = b""
    start = place = end = 0
    last = -1
    nothing, read_control = _NOTHING, _read_control
    while left:
        if place > last:
            start += place
            window = bytes(patch[start : start + _WINDOW])
            place = 0
            end = len(window)
            last = end - _CONTROL
            if last < 0:
                raise CorruptError("a patch ends before its content")
        first = place
        made: list[bytes | memoryview] = []
        add, adds = made.append, window.startswith
        is_long = False
        # Compressed files have a control for every 30 bytes: this way costs 0.4 microseconds, and what can wait for
        # the window's end is not checked for each.
        while place <= last:
            added, literal, seek = read_control(window, place)  # negative ones are above 2⁶³ as they are read
            begin = place + _CONTROL
            middle = begin + added
            behind = middle + literal
            stop = position + added
            if added >= _FEW or behind > end or position < 0 or stop > old_end:
                is_long = True
                break
            if adds(nothing[added], begin):
                add(source[position:stop])
            else:
                add(add_bytes(window[begin:middle], source[position:stop]))
            add(window[middle:behind])
            place = behind
            position = stop + (seek if seek < _SIGN else _SIGN - seek)
        piece = b"".join(made)
        left -= len(piece)
        idle += (place - first - len(piece)) // _CONTROL - len(piece)
        if left < 0:
            raise CorruptError("a patch reaches beyond its content")
        if idle > most_idle:
            raise CorruptError("a patch goes on without making anything")
        if not left and (is_long or place == begin):
            raise CorruptError("a patch goes on behind its content")
        if piece:
            yield piece
        if is_long:
            left -= added + literal
            idle += 1 - added - literal
            if left < 0 or start + behind > patch_end:
                raise CorruptError("a patch reaches beyond its content or its end")
            for done in range(0, added, _BLOCK):
                some = min(_BLOCK, added - done)
                change = patch[start + begin + done :][:some]
                base = _window(old, position + done, some)
                yield base if change == _ZEROS[:some] else add_bytes(change, base)
            if literal:
                yield patch[start + middle : start + behind]
            place = behind
            position = stop + (seek if seek < _SIGN else _SIGN - seek)
    if start + place != patch_end:
        raise CorruptError("a patch goes on behind its content")


def _window(old: memoryview, start: int, count: int) -> bytes | memoryview:
    """Return ``count`` bytes from ``start`` on, which may lie outside, where everything is zero."""
    if start >= 0 and start + count <= len(old):
        return old[start : start + count]
    before = min(max(-start, 0), count)
    inside = bytes(old[max(start, 0) : max(start + count, 0)])
    return (bytes(before) + inside).ljust(count, b"\0")
