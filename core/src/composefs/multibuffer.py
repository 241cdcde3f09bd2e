"""Hashes of many blocks at a time, by libipsec-mb (Intel Multi-Buffer Crypto for IPsec) where the system has it.

A vector register holds the state of eight SHA-512 computations side by side, but a single one cannot use that: its
rounds depend on each other.  The blocks of a file under fs-verity do not.  64 blocks of 4 KiB take 100 µs in the lanes
of AVX-512 and 350 one after the other, with hashlib; SHA-256, for which processors have instructions of its own, 95 and
195 (AMD EPYC).

The library has no function to link to for this but a table of them at fixed places of a structure, which its macro
``IMB_SUBMIT_HASH_BURST`` compiles into each program that uses it: those of version 2, ``libIPSec_MB.so.2``, x86-64
(``intel-ipsec-mb.h``, struct IMB_MGR and struct IMB_JOB).  Other versions are left alone.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import hashlib
import os
import struct
from typing import TYPE_CHECKING

from composefs.digest import BLOCK_SIZE, Algorithm
from composefs.errors import InputOutputError

if TYPE_CHECKING:
    import mmap

__all__ = ["Lanes", "make_lanes"]

_SONAME = "libIPSec_MB.so.2"
_MACHINE = "x86_64"
_VERSION = 0x02_00_00  # IMB_VERSION_NUM of 2.0.0; the next major one is another ABI

_SUBMIT_HASH_BURST = 1000  # struct IMB_MGR, submit_hash_burst
_NUMBERS = {"sha256": 15, "sha512": 17}  # enum IMB_HASH_ALG, IMB_AUTH_SHA_256 and IMB_AUTH_SHA_512
_JOB = struct.Struct("<24xQ24xQQ16xQQ112x")  # struct IMB_JOB: src, offset and length to hash, output and its length


class Lanes:
    """Hashes the first blocks of one buffer, side by side; for one thread at a time.

    With fewer than ``least`` blocks hashlib is as fast.  Raises ``OSError`` where the library cannot do it.
    """

    __slots__ = ("_burst", "_free", "_jobs", "_jobs_at", "_kept", "_manager", "_number", "_out", "_size", "least")

    def __init__(self, library: ctypes.CDLL, buffer: bytearray | mmap.mmap, algorithm: Algorithm) -> None:
        self._free = library.free_mb_mgr
        self._manager = library.alloc_mb_mgr(0)
        if not self._manager:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        library.init_mb_mgr_auto(self._manager, None)
        submit = ctypes.c_size_t.from_address(self._manager + _SUBMIT_HASH_BURST).value
        if not submit or library.imb_get_errno(self._manager):
            raise OSError(errno.EOPNOTSUPP, f"{_SONAME} does not know this processor")
        self._burst = _PROTOTYPE(submit)
        self._number = _NUMBERS[algorithm.name]
        self._size = size = algorithm.size
        blocks = len(buffer) // BLOCK_SIZE
        self._out = bytearray(blocks * size)
        self._jobs = bytearray(blocks * _JOB.size)
        source, out, self._jobs_at = _address(buffer), _address(self._out), _address(self._jobs)
        self._kept = memoryview(buffer)  # while somebody looks at it, its bytes stay where they are
        self.least = 3 if algorithm.name == "sha512" else 8
        for number in range(blocks):
            job = (source + number * BLOCK_SIZE, 0, BLOCK_SIZE, out + number * size, size)
            _JOB.pack_into(self._jobs, number * _JOB.size, *job)

    def digests(self, count: int) -> bytes:
        """Return the hashes of the first ``count`` blocks of the buffer, one after the other."""
        if self._burst(self._manager, self._jobs_at, count, self._number) != count:
            raise InputOutputError(f"{_SONAME} did not hash what it was given")
        return bytes(self._out[: count * self._size])

    def __del__(self) -> None:
        self._free(self._manager)


_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int)


def make_lanes(buffer: bytearray | mmap.mmap, algorithm: Algorithm) -> Lanes | None:
    """Make lanes for a buffer of some blocks, which keeps its content; None if the system has no such library.

    Takes a millisecond or two, most of it the library's test of itself.
    """
    library = _library()
    if library is None:
        return None
    try:
        lanes = Lanes(library, buffer, algorithm)
    except OSError:
        return None
    return lanes if _agrees(lanes, buffer, algorithm) else None


def _agrees(lanes: Lanes, buffer: bytearray | mmap.mmap, algorithm: Algorithm) -> bool:
    """Tell whether the lanes have the hashes that hashlib has: an id that is wrong would be found much later."""
    kept = bytes(buffer)
    try:
        count = len(buffer) // BLOCK_SIZE
        blocks = [number.to_bytes(BLOCK_SIZE, "little") for number in range(count)]
        buffer[:] = b"".join(blocks)
        return lanes.digests(count) == b"".join([hashlib.new(algorithm.name, block).digest() for block in blocks])
    finally:
        buffer[:] = kept


def _address(buffer: bytearray | mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


@functools.cache
def _library() -> ctypes.CDLL | None:
    if os.uname().machine != _MACHINE:
        return None
    try:
        library = ctypes.CDLL(_SONAME)
        version: int = library.imb_get_version()
        library.alloc_mb_mgr.argtypes = [ctypes.c_uint64]
        library.alloc_mb_mgr.restype = ctypes.c_void_p
        library.free_mb_mgr.argtypes = [ctypes.c_void_p]
        library.imb_get_errno.argtypes = [ctypes.c_void_p]
        library.init_mb_mgr_auto.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    except (OSError, AttributeError):  # there is none, or it lacks a function
        return None
    return library if version >> 16 == _VERSION >> 16 else None
