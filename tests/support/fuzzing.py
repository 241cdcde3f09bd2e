"""Fuzzing: what reads something, sound cases to begin with, and ways to damage these, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from composefs_ext.errors import FormatError

__all__ = ["NUMBERS", "Subject", "accepts", "damaged"]


class Subject(NamedTuple):
    """Something to fuzz: ``read`` returns if it takes a case, and raises one of ``refusals`` if not."""

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...] = (FormatError,)


def accepts(subject: Subject, case: bytes) -> bool:
    """Tell whether a case is taken; what is neither taken nor properly refused goes through."""
    try:
        subject.read(case)
    except subject.refusals:
        return False
    return True


NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
"""Those at which something begins or ends."""


def damaged(seeds: list[bytes], count: int, seed: int = 7) -> Iterator[bytes]:
    """Yield seeds with bytes changed, removed, repeated and taken from each other; the same ones for each ``seed``."""
    chooser = random.Random(seed)
    for _ in range(count):
        data = bytearray(chooser.choice(seeds))
        for _ in range(chooser.choice((1, 1, 1, 2, 3, 6))):
            _damage(data, chooser, seeds)
        yield bytes(data)


def _damage(data: bytearray, chooser: random.Random, seeds: list[bytes]) -> None:
    place, size = chooser.randrange(len(data) + 1), chooser.randint(1, 12)
    match chooser.randrange(10):
        case 0 | 1:
            data[place : place + 1] = chooser.randbytes(1)
        case 2:
            if place < len(data):
                data[place] ^= 1 << chooser.randrange(8)
        case 3:  # where offsets are
            place = max(0, len(data) - size)
            if data:
                data[place] = (data[place] + chooser.choice((-8, -2, -1, 1, 2, 8))) % 256
        case 4:
            del data[place : place + size]
        case 5:
            data[place:place] = data[place : place + size] * chooser.randint(1, 3)
        case 6:
            other = chooser.choice(seeds)
            start = chooser.randrange(len(other) + 1)
            data[place : place + size] = other[start : start + chooser.randint(0, 40)]
        case 7:
            width = chooser.choice((1, 2, 4, 8))
            number = chooser.choice((*NUMBERS, len(data), chooser.getrandbits(16))) % (1 << 8 * width)
            data[place : place + width] = number.to_bytes(width, chooser.choice(("little", "big")))
        case 8:
            del data[place:]
        case _:
            other = chooser.choice(seeds)
            data[place:] = other[min(place, len(other)) :]
