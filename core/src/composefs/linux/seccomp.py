"""Seccomp: a process gives up, for good, making hard links.

Landlock (:mod:`composefs.linux.landlock`) goes by where a file was when it was opened: to who keeps a file open by a
second name, removed since, it belongs to that name's directory for as long as it is open, wherever the first one goes.
So it could be written to, by /proc/self/fd, after it was taken away.  Without hard links there are no second names.

seccomp(2), and for the numbers asm/unistd.h of each architecture and linux/audit.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from composefs.linux.libc import syscall

__all__ = ["give_up_hard_links"]

_SET_MODE_FILTER = 1
_FILTER_FLAG_SPEC_ALLOW = 4  # what it costs else to guard against speculation is for who runs foreign code in itself

_IO_URING_SETUP = 425  # it has an operation for links; the number is that of every architecture
_X32 = 1 << 30

# By machine: the number of seccomp(2); and for each ABI of it, its AUDIT_ARCH_ and what makes links there.
_MACHINES = {
    "x86_64": (
        317,
        (
            (0xC000003E, (86, 265, _IO_URING_SETUP, _X32 | 86, _X32 | 265, _X32 | _IO_URING_SETUP)),
            (0x40000003, (9, 303, _IO_URING_SETUP)),
        ),
    ),
    "aarch64": (277, ((0xC00000B7, (37, _IO_URING_SETUP)), (0x40000028, (9, 330, _IO_URING_SETUP)))),
    "riscv64": (277, ((0xC00000F3, (37, _IO_URING_SETUP)),)),
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

    It must have given up new privileges before.  Nothing happens on machines whose numbers are not known here, with
    kernels without seccomp, and in a container that keeps it from us.
    """
    known = _MACHINES.get(os.uname().machine)
    if known is None:
        return
    number, abis = known
    program = _program(abis)
    arguments = _Program(len(program) // _INSTRUCTION.size, program)
    try:
        syscall(number, _SET_MODE_FILTER, _FILTER_FLAG_SPEC_ALLOW, ctypes.addressof(arguments))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
            raise


def _program(abis: tuple[tuple[int, tuple[int, ...]], ...]) -> bytes:
    """Write the filter: what is of no ABI that is known cannot be called at all."""
    lines = [_INSTRUCTION.pack(_LOAD, 0, 0, _ARCHITECTURE_AT)]
    for architecture, numbers in abis:
        lines.append(_INSTRUCTION.pack(_JUMP_IF_EQUAL, 0, len(numbers) + 3, architecture))
        lines.append(_INSTRUCTION.pack(_LOAD, 0, 0, _NUMBER_AT))
        for left, each in zip(range(len(numbers), 0, -1), numbers, strict=True):
            lines.append(_INSTRUCTION.pack(_JUMP_IF_EQUAL, left, 0, each))
        lines.append(_INSTRUCTION.pack(_RETURN, 0, 0, _ALLOW))
        lines.append(_INSTRUCTION.pack(_RETURN, 0, 0, _REFUSE | errno.EPERM))
    lines.append(_INSTRUCTION.pack(_RETURN, 0, 0, _REFUSE | errno.ENOSYS))
    return b"".join(lines)
