"""A double of the kernel's fs-verity, at the level of the ioctls, for kernels and file systems that have none.

It knows the rules of FS_IOC_ENABLE_VERITY and FS_IOC_MEASURE_VERITY (kernel documentation, filesystems/fsverity.rst):
enabling fails with EACCES for who may not write the file, with ETXTBSY while anybody has it open for writing, and with
EEXIST the second time; measuring without fs-verity fails with ENODATA.  It does not make files immutable, and keeps
them open so that no other file gets their inode numbers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from composefs import fsverity
from composefs.digest import ALGORITHMS

_BY_NUMBER = {algorithm.number: algorithm for algorithm in ALGORITHMS.values()}
_REAL_IOCTL = fcntl.ioctl


class KernelVerity:
    """Answers the two ioctls; ``digests`` maps (device, inode) to (number of the algorithm, digest).

    ``root`` is whether the caller may write every file, as root may.
    """

    def __init__(self) -> None:
        self.root = True
        self.digests: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._pins: list[int] = []

    def close(self) -> None:
        """Close the files."""
        for fd in self._pins:
            os.close(fd)

    def __call__(self, fd: int, request: int, argument: Any = 0, *rest: Any) -> Any:
        if request not in (0x40806685, 0xC0046686):
            return _REAL_IOCTL(fd, request, argument, *rest)
        status = os.fstat(fd)
        key = (status.st_dev, status.st_ino)
        if request == 0x40806685:
            if not (self.root or status.st_mode & stat.S_IWUSR):
                raise OSError(errno.EACCES, "may not be written")
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
        self._pins.append(os.dup(fd))
        self.digests[key] = (number, fsverity.digest_fd(fd, _BY_NUMBER[number]))
        return 0


@contextlib.contextmanager
def kernel_verity(monkeypatch: pytest.MonkeyPatch) -> Iterator[KernelVerity]:
    """Let this process' kernel have fs-verity."""
    kernel = KernelVerity()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "ioctl", kernel)
        yield kernel
    kernel.close()
