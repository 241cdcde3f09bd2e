"""A double of the kernel's fs-verity, at the level of the ioctls, for kernels and file systems that have none.

It knows the rules of FS_IOC_ENABLE_VERITY and FS_IOC_MEASURE_VERITY (kernel documentation, filesystems/fsverity.rst):
enabling fails with ETXTBSY while anybody has the file open for writing, and with EEXIST the second time; measuring
without fs-verity fails with ENODATA.  It does not make files immutable.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import Any

from composefs import fsverity
from composefs.digest import ALGORITHMS

_BY_NUMBER = {algorithm.number: algorithm for algorithm in ALGORITHMS.values()}
_REAL_IOCTL = fcntl.ioctl


class KernelVerity:
    """Answers the two ioctls; use ``monkeypatch.setattr(fcntl, "ioctl", KernelVerity())``."""

    def __init__(self) -> None:
        self.digests: dict[tuple[int, int], tuple[int, bytes]] = {}

    def __call__(self, fd: int, request: int, argument: Any = 0, *rest: Any) -> Any:
        if request not in (0x40806685, 0xC0046686):
            return _REAL_IOCTL(fd, request, argument, *rest)
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        if request == 0x40806685:
            return self._enable(fd, key, argument)
        if key not in self.digests:
            raise OSError(errno.ENODATA, "no fs-verity")
        number, digest = self.digests[key]
        argument[: 4 + len(digest)] = struct.pack("=HH", number, len(digest)) + digest
        return 0

    def _enable(self, fd: int, key: tuple[int, int], argument: bytes) -> int:
        if key in self.digests:
            raise OSError(errno.EEXIST, "has fs-verity")
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except BlockingIOError:
            raise OSError(errno.ETXTBSY, "open for writing") from None
        _, number, block_size = struct.unpack_from("=III", argument)
        assert block_size == 4096
        self.digests[key] = (number, fsverity.digest_fd(fd, _BY_NUMBER[number]))
        return 0
