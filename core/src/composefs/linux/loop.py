"""Loop devices: a file as a block device (loop(4); the numbers are those of linux/loop.h)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from composefs.linux.closing import Descriptor

__all__ = ["loop_device"]

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_BLOCK_SIZE = 4096
# struct loop_config: fd, block_size, struct loop_info64 (lo_flags at byte 52, 232 in all), 8 reserved u64
_CONFIG = struct.Struct("=II52xI176x64x")
_ATTEMPTS = 16


def loop_device(fd: int) -> tuple[int, str]:
    """Make a read-only loop device of an open file; return the device, open, and its path.

    It goes away by itself once the device is closed here and no longer mounted.  Raises ``OSError``.
    """
    with Descriptor(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)) as control:
        for _ in range(_ATTEMPTS):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.ioctl(
                    device, _LOOP_CONFIGURE, _CONFIG.pack(fd, _BLOCK_SIZE, _LO_FLAGS_READ_ONLY | _LO_FLAGS_AUTOCLEAR)
                )
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else took it between the two calls
                    raise
            else:
                return device, path
    raise OSError(errno.EBUSY, "no free loop device")
