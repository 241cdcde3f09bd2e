"""Patches: what they make is what the format says, byte by byte, and they stop at their bounds."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from composefs_ext.errors import CorruptError
from composefs_ostree.deltas.bspatch import add_bytes, bspatch
from support.ostree_delta import control


def patched(old: bytes, patch: bytes, size: int) -> bytes:
    return b"".join(bspatch(memoryview(old), memoryview(patch), size))


def slowly(old: bytes, patch: bytes, size: int) -> bytes:
    """The format's description, one byte after the other."""
    new = bytearray()
    place = position = 0
    while len(new) < size:
        numbers = [int.from_bytes(patch[place + at : place + at + 8], "little") for at in (0, 8, 16)]
        added, literal, seek = (-(n & (1 << 63) - 1) if n >> 63 else n for n in numbers)
        place += 24
        for index in range(added):
            byte = old[position + index] if 0 <= position + index < len(old) else 0
            new.append((patch[place + index] + byte) % 256)
        new += patch[place + added : place + added + literal]
        place += added + literal
        position += added + seek
    return bytes(new)


@pytest.mark.parametrize("size", [0, 1, 2, 255, 16383, 16384])
def test_adding(size: int) -> None:
    chooser = random.Random(size)
    one, other = chooser.randbytes(size), chooser.randbytes(size)
    assert add_bytes(one, other) == bytes((a + b) % 256 for a, b in zip(one, other, strict=True))


def test_all_pairs_of_bytes() -> None:
    one = bytes(a for a in range(256) for _ in range(64)) * 4
    other = bytes((b + 64 * block) % 256 for block in range(4) for _ in range(256) for b in range(64))
    for start in range(0, len(one), 16384):
        part, rest = one[start : start + 16384], other[start : start + 16384]
        assert add_bytes(part, rest) == bytes((a + b) % 256 for a, b in zip(part, rest, strict=True))


@pytest.mark.parametrize("seed", range(30))
def test_patches_of_all_shapes(seed: int) -> None:
    chooser = random.Random(seed)
    old = chooser.randbytes(chooser.choice((0, 1, 50_000, 100_000)))
    patch, size = b"", 0
    for _ in range(chooser.randrange(1, 20)):
        added, literal = chooser.choice((0, 1, 70, 16384, 40_000)), chooser.choice((0, 1, 5000))
        change = bytes(added) if chooser.random() < 0.5 else chooser.randbytes(added)
        patch += control(added, literal, chooser.randrange(-60_000, 60_000)) + change + chooser.randbytes(literal)
        size += added + literal
    patch += control(1, 0, 0) + b"z"  # a control that makes nothing is not read at the end
    assert patched(old, patch, size + 1) == slowly(old, patch, size + 1)


@pytest.mark.parametrize("old_size", [0, 30_000, 1 << 21], ids=lambda size: f"{size} old bytes")
def test_patches_of_many_small_controls(old_size: int) -> None:
    """As those of compressed files are: longer than what is read of a patch at a time, and nearly all zeros to add."""
    chooser = random.Random(old_size)
    old = chooser.randbytes(old_size)
    patch = bytearray()
    size = 0
    for number in range(5000):
        added, literal = chooser.choice((0, 8, 9, 30, 255, 256)), chooser.choice((0, 5, 30, 70))
        if number % 1000 == 500:
            literal = 100_000
        change = chooser.randbytes(added) if chooser.random() < 0.02 else bytes(added)
        seek = chooser.randrange(-old_size - 9, old_size + 9) if chooser.random() < 0.1 else chooser.randrange(-9, 9)
        patch += control(added, literal, seek) + change + chooser.randbytes(literal)
        size += added + literal
    patch += control(1, 0, 0) + b"z"
    assert patched(old, bytes(patch), size + 1) == slowly(old, bytes(patch), size + 1)
    with pytest.raises(CorruptError, match="patch"):
        patched(old, bytes(patch[:-1]), size + 1)


def test_empty_controls_as_bsdiff_makes_them_of_what_repeats_itself() -> None:
    line = b"line of text 3\n"
    patch = control(0, 0, -1) * 12_000 + control(0, 15 * 12_000, 0) + line * 12_000
    assert patched(b"", patch, 15 * 12_000) == line * 12_000


def test_unchanged_bytes_are_not_computed() -> None:
    old = bytes(range(256)) * 64
    (piece,) = bspatch(memoryview(old), memoryview(control(16384, 0, 0) + bytes(16384)), 16384)
    assert isinstance(piece, memoryview)
    assert piece == old


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (b"", "ends before its content"),
        (control(1, 0, 0)[:23], "ends before its content"),
        (control(1, 0, 0), "beyond its content or its end"),
        (control(0, 1, 0), "beyond its content or its end"),
        (control(-1, 2, 0) + b"ab", "beyond its content or its end"),
        (control(2, -1, 0) + b"ab", "beyond its content or its end"),
        (control(1 << 62, 0, 0) + b"a", "beyond its content or its end"),
        (control(0, (1 << 63) - 1, 0) + b"a", "beyond its content or its end"),
        (control(1, 1, 0) + b"ab", "beyond its content$"),
        (control(0, 1, 0) + b"ab", "goes on behind its content"),
        (control(0, 1, 0) + b"a" + control(0, 0, 0), "goes on behind its content"),
        (control(0, 0, 0) * 100_000, "goes on without making anything"),
        (control(0, 0, 9) * 10_000, "goes on without making anything"),  # outside of the old content
    ],
    ids=lambda value: f"{len(value)} bytes" if isinstance(value, bytes) else None,
)
def test_hostile_patches(patch: bytes, says: str) -> None:
    with pytest.raises(CorruptError, match=f"a patch .*{says}"):
        patched(b"old", patch, 1)


def test_a_patch_that_makes_nothing_copies_nothing() -> None:
    """A delta of 4 kB may have 8,000,000 of them, each of a file of 1 MiB: five minutes of copying."""
    old = bytes(1 << 20)
    tracemalloc.start()
    try:
        assert patched(old, b"", 0) == b""
        assert tracemalloc.get_traced_memory()[1] < 1 << 16
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("seek", [(1 << 63) - 1, -(1 << 63) + 1, 10**9, -(10**9)])
def test_seeking_far_outside_reads_zeros(seek: int) -> None:
    patch = control(0, 1, seek) + b"a" + control(3, 0, -seek) + b"bcd" + control(3, 0, 0) + b"\0\1\2"
    assert patched(b"xyz", patch, 7) == b"abcd" + (bytes([0, 1, 2]) if seek else b"")
