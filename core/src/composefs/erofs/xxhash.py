"""XXH32, the hash of EROFS' filter of attribute names.

Source: the xxHash fast digest algorithm specification, version 0.1.1 (doc/xxhash_spec.md of Cyan4973/xxHash).
Names are short and each is hashed once for an image, so a plain loop does.
"""

from __future__ import annotations

import struct

__all__ = ["xxh32"]

_PRIME_1 = 0x9E3779B1
_PRIME_2 = 0x85EBCA77
_PRIME_3 = 0xC2B2AE3D
_PRIME_4 = 0x27D4EB2F
_PRIME_5 = 0x165667B1
_MASK = 0xFFFFFFFF


def _rotate(value: int, bits: int) -> int:
    value &= _MASK
    return (value << bits | value >> 32 - bits) & _MASK


def xxh32(data: bytes, seed: int) -> int:
    """Return the 32-bit hash of ``data``."""
    stripes = len(data) // 16 * 16
    if stripes:
        lanes = [seed + _PRIME_1 + _PRIME_2, seed + _PRIME_2, seed, seed - _PRIME_1]
        for words in struct.iter_unpack("<4I", data[:stripes]):
            lanes = [_rotate(lane + word * _PRIME_2, 13) * _PRIME_1 for lane, word in zip(lanes, words, strict=True)]
        value = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
    else:
        value = seed + _PRIME_5
    value += len(data)
    words_end = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[stripes:words_end]):
        value = _rotate(value + word * _PRIME_3, 17) * _PRIME_4
    for byte in data[words_end:]:
        value = _rotate(value + byte * _PRIME_5, 11) * _PRIME_1
    value &= _MASK
    value = (value ^ value >> 15) * _PRIME_2 & _MASK
    value = (value ^ value >> 13) * _PRIME_3 & _MASK
    return value ^ value >> 16
