"""A file as memory: mapped (mmap(2)), with all of it brought in, so that a disk that fails is an error.

Whoever looks at a page of a map that the disk does not give back, or in which fs-verity finds another content, is ended
by SIGBUS.  To ask for all pages at once (MADV_POPULATE_READ of madvise(2), Linux 5.14) tells it before.  Somebody who
cuts the file meanwhile is still the end of who looks.
"""

from __future__ import annotations

import errno
import mmap
import os

__all__ = ["MADV_POPULATE_READ", "map_file"]

MADV_POPULATE_READ = 22
"""What the mmap module does not name (asm-generic/mman-common.h)."""


def map_file(fd: int, size: int) -> mmap.mmap:
    """Map an open file of ``size`` bytes, more than none.  Raises ``OSError``, EIO for what cannot be read."""
    data = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    try:
        data.madvise(MADV_POPULATE_READ)
    except OSError as error:
        if error.errno == errno.EFAULT:  # others say that this kernel does not know how
            data.close()
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
    return data
