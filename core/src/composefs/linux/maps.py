"""A file as memory: mapped (mmap(2)), with all of it brought in, so that a disk that fails is an error.

A process that touches a mapped page is killed by SIGBUS if the disk cannot deliver the page, or fs-verity finds other
content in it.  Asking for all pages first makes that an error (MADV_POPULATE_READ of madvise(2), Linux 5.14).  Against
somebody who cuts the file afterwards it does not help.
"""

from __future__ import annotations

import errno
import mmap
import os

__all__ = ["MADV_POPULATE_READ", "map_file"]

MADV_POPULATE_READ = 22
"""What the mmap module does not name (asm-generic/mman-common.h)."""


def map_file(fd: int, size: int) -> mmap.mmap:
    """Map an open file of ``size`` bytes, at least one.  Raises ``OSError``, EIO for what cannot be read."""
    data = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
    try:
        data.madvise(MADV_POPULATE_READ)
    except OSError as error:
        if error.errno == errno.EFAULT:  # others say that this kernel does not know how
            data.close()
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from error
    return data
