"""A window: addresses at which one piece of a file after another shows (mmap(2), MAP_FIXED), without being copied.

It is for what computes with addresses.  Reading 256 KiB into a buffer takes 100 µs where they are no longer in the
processor's cache, showing them 10.

A piece that cannot be had, because the disk fails, is found when it is shown (MADV_POPULATE_READ of madvise(2), Linux
5.14), and not by SIGBUS when it is looked at.  A file that somebody cuts meanwhile would still be the end of the
process: show only what nobody can write to.
"""

from __future__ import annotations

import ctypes
import mmap

from composefs.linux.libc import libc
from composefs.linux.maps import MADV_POPULATE_READ

__all__ = ["Window"]

_MAP_FIXED = 0x10
"""What the mmap module does not name (asm-generic/mman-common.h)."""

_mmap = libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_madvise = libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Window:
    """A window of ``size`` bytes, a multiple of the page size.

    ``memory`` are its addresses.  Until something has been shown it can be written to, after that it must not.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))

    def show(self, fd: int, offset: int) -> bool:
        """Show the bytes of an open file from ``offset`` on, a multiple of the page size; tell whether it could.

        There must be as many as the window has.  What cannot be shown may still be read; if not, reading tells why.
        """
        flags = mmap.MAP_SHARED | _MAP_FIXED
        if _mmap(self._address, self.size, mmap.PROT_READ, flags, fd, offset) != self._address:
            self.clear()  # a file system that refuses (FUSE, direct_io) is asked when what was here is gone
            return False
        return not _madvise(self._address, self.size, MADV_POPULATE_READ)

    def clear(self) -> None:
        """Let go of what is shown."""
        _mmap(self._address, self.size, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_FIXED, -1, 0)
