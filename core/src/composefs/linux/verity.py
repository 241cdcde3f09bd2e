"""fs-verity of the kernel: enabling it for a file, and asking for the digest that it enforces.

Kernel documentation, filesystems/fsverity.rst, "User API".  Apart from :mod:`composefs.fsverity`, which computes
digests: every command that opens a repository asks whether it is secure, and few hash anything.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from composefs.digest import ALGORITHMS, BLOCK_SIZE, Algorithm
from composefs.errors import BusyError, UnsupportedError
from composefs.linux.ioctls import FS_IOC_ENABLE_VERITY, FS_IOC_MEASURE_VERITY

__all__ = ["enable", "measure"]

_ENABLE = struct.Struct("=IIIIQIIQ88x")  # struct fsverity_enable_arg
_MEASURE = struct.Struct("=HH")  # struct fsverity_digest, followed by the digest
_MAX_DIGEST = 64

_BY_NUMBER = {algorithm.number: algorithm for algorithm in ALGORITHMS.values()}


def measure(fd: int) -> tuple[Algorithm, bytes] | None:
    """Return the algorithm and digest, raw, that the kernel enforces for an open file.

    None when the file has no fs-verity, or its file system or the kernel does not know it.  Raises ``OSError``.
    """
    request = bytearray(_MEASURE.pack(0, _MAX_DIGEST) + bytes(_MAX_DIGEST))
    try:
        fcntl.ioctl(fd, FS_IOC_MEASURE_VERITY, request)
    except OSError as error:
        # EINVAL is what some FUSE servers, ntfs-3g for one, answer to what they do not know.
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL):
            return None
        raise
    number, size = _MEASURE.unpack_from(request)
    if number not in _BY_NUMBER:
        raise UnsupportedError(f"the file has fs-verity with hash algorithm {number}; only 1 and 2 are known")
    return _BY_NUMBER[number], bytes(request[_MEASURE.size : _MEASURE.size + size])


def enable(fd: int, algorithm: Algorithm) -> bool:
    """Enable fs-verity on a file opened for reading; False if it has it already, perhaps with other parameters.

    From then on the kernel refuses every write and checks every read.  Raises BusyError (``retryable``) while anybody,
    a child between fork and exec included, has the file open for writing, UnsupportedError when the file system,
    its block size or the kernel cannot do it, and ``OSError``.

    Only syncfs(2) makes it durable, and so the name that a file without one gets afterwards: what btrfs writes for
    fsync(2), of the file or its directory, says that the file has fs-verity, and not which.  After a power cut nobody
    can open that (EMSGSIZE, seen with Linux 6.12).
    """
    request = _ENABLE.pack(1, algorithm.number, BLOCK_SIZE, 0, 0, 0, 0, 0)
    try:
        fcntl.ioctl(fd, FS_IOC_ENABLE_VERITY, request)
    except OSError as error:
        match error.errno:
            case errno.EEXIST:
                return False
            case errno.ETXTBSY:
                raise BusyError("enabling fs-verity: the file is open for writing", retryable=True) from error
            case errno.EOPNOTSUPP | errno.ENOTTY | errno.EINVAL:
                raise UnsupportedError(
                    f"enabling fs-verity: {os.strerror(error.errno)}",
                    hint="use a file system and kernel with fs-verity (ext4 with -O verity and 4 KiB blocks, btrfs, "
                    "f2fs), or an insecure repository (init --insecure)",
                ) from error
        raise
    return True
