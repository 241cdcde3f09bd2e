"""Seccomp: a process gives up, for good, making hard links (seccomp(2), with a filter; link(2) and its kin).

Landlock (:mod:`composefs.linux.landlock`) judges an open file by the name by which it was opened.  A process could give
a file a second name, open it by that, and remove the name again: then it could still write to the file, by
/proc/self/fd, after the file was taken away under its first name.  Without hard links there are no second names.

The numbers are those of asm/unistd.h of each architecture, and of linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import sys
from contextlib import suppress

from composefs.linux.libc import syscall
from composefs.linux.prctl import set_seccomp_filter

__all__ = ["give_up_hard_links"]

# The number of seccomp(2), by what this Python was compiled for, which no personality of the process changes.
_NUMBERS = {
    **dict.fromkeys(("x86_64-linux-gnu", "x86_64-linux-musl"), 317),
    **dict.fromkeys(("aarch64-linux-gnu", "aarch64-linux-musl", "riscv64-linux-gnu", "riscv64-linux-musl"), 277),
}
_SET_MODE_FILTER = 1
_FILTER_FLAG_SPEC_ALLOW = 4  # Linux before 5.16 slows down else what it runs, against speculation between foreign code

_IO_URING_SETUP = 425  # it has an operation for links; the number is that of every architecture
_X32 = 1 << 30

# The numbers of the calls that make links, by AUDIT_ARCH_*.  That is of the call, not of the machine: of a machine that
# runs programs of two architectures both must be here, or links would be made by way of the other one.
_CALLS = {
    0xC000003E: (86, 265, _IO_URING_SETUP, _X32 | 86, _X32 | 265, _X32 | _IO_URING_SETUP),  # x86-64
    0x40000003: (9, 303, _IO_URING_SETUP),  # i386
    0xC00000B7: (37, _IO_URING_SETUP),  # ARM, 64 bits
    0x40000028: (9, 330, _IO_URING_SETUP),  # ARM, 32 bits
    0xC00000F3: (37, _IO_URING_SETUP),  # RISC-V, 64 bits
    0x400000F3: (37, _IO_URING_SETUP),  # RISC-V, 32 bits
}

# struct sock_filter: code, jump if true, jump if false, k; struct sock_fprog: how many, and where they are.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4  # struct seccomp_data
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000  # SECCOMP_RET_ERRNO, to which the number is added


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def give_up_hard_links() -> None:
    """Have this thread, and all that it starts, refused hard links with EPERM, as where a file system has none.

    It must have given up new privileges before.  Nothing happens where the numbers of calls are not known here, with
    kernels without seccomp, and in a container that keeps it from us.
    """
    program = _program()
    arguments = _Program(len(program) // _INSTRUCTION.size, program)
    number = _NUMBERS.get(getattr(sys.implementation, "_multiarch", ""))
    if number is not None:
        with suppress(OSError):
            syscall(number, _SET_MODE_FILTER, _FILTER_FLAG_SPEC_ALLOW, ctypes.addressof(arguments))
            return
    try:
        set_seccomp_filter(ctypes.addressof(arguments))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
            raise


def _program() -> bytes:
    lines = [_INSTRUCTION.pack(_LOAD, 0, 0, _ARCHITECTURE_AT)]
    for architecture, numbers in _CALLS.items():
        lines.append(_INSTRUCTION.pack(_JUMP_IF_EQUAL, 0, len(numbers) + 3, architecture))
        lines.append(_INSTRUCTION.pack(_LOAD, 0, 0, _NUMBER_AT))
        for left, each in zip(range(len(numbers), 0, -1), numbers, strict=True):
            lines.append(_INSTRUCTION.pack(_JUMP_IF_EQUAL, left, 0, each))
        lines.append(_INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW))
        lines.append(_INSTRUCTION.pack(_RETURN, 0, 0, _REFUSE | errno.EPERM))
    lines.append(_INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW))
    return b"".join(lines)
