"""Requests of ioctl(2) as the headers of Linux make them: direction, size, letter and number in one word.

Some architectures have other bits for the direction (asm/ioctl.h of theirs, asm-generic/ioctl.h of all others).
"""

from __future__ import annotations

import os

__all__ = ["FICLONE", "FS_IOC_ENABLE_VERITY", "FS_IOC_MEASURE_VERITY", "NS_GET_NSTYPE"]

_MACHINE = os.uname().machine
_NONE, _READ, _WRITE = 0, 2 << 30, 1 << 30
if _MACHINE.startswith(("ppc", "mips", "sparc", "alpha")):
    _NONE, _READ, _WRITE = 1 << 29, 2 << 29, 4 << 29
elif _MACHINE.startswith("parisc"):
    _READ, _WRITE = _WRITE, _READ


def _request(direction: int, letter: int, number: int, size: int = 0) -> int:
    return direction | size << 16 | letter << 8 | number


FICLONE = _request(_WRITE, 0x94, 9, 4)
FS_IOC_ENABLE_VERITY = _request(_WRITE, ord("f"), 133, 128)
FS_IOC_MEASURE_VERITY = _request(_READ | _WRITE, ord("f"), 134, 4)
NS_GET_NSTYPE = _request(_NONE, 0xB7, 3)
