"""The C library, for what the standard library lacks: its functions and system calls, whose failures are OSErrors.

ctypes is imported with this module, so import it only where such a call is about to be made.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["checked", "libc", "syscall"]

libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> int:
    """Return what a function of ``libc`` returned; raise ``OSError``, by errno, if that is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """Make the system call that has this number."""
    # A plain int would be passed as a C int, and leave the upper half of the register to chance.
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return checked(_syscall(ctypes.c_long(number), *words))


_syscall = libc.syscall
_syscall.restype = ctypes.c_long
