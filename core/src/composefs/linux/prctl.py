"""The process attributes of prctl(2) that running somebody else's program needs.

ctypes is imported with this module, so import it only where a program is about to be run.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from signal import SIGKILL

from composefs.linux.libc import checked, libc

__all__ = ["drop_capabilities", "end_with_parent", "set_child_subreaper", "set_no_new_privileges", "set_seccomp_filter"]

_PR_SET_PDEATHSIG = 1
_PR_SET_SECCOMP = 22
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_MODE_FILTER = 2

_prctl = libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_prctl.restype = ctypes.c_int


def _set(option: int, value: int, further: int = 0) -> None:
    checked(_prctl(option, value, further, 0, 0))


def drop_capabilities(kept: frozenset[int]) -> None:
    """Limit what this process executes, even as root, to the capabilities ``kept`` (capabilities(7)).

    Where a container's root lacks the right to give some up, nothing happens.
    """
    for capability in range(64):
        if _prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) < 0:
            return  # the kernel has no more
        if capability not in kept:
            with suppress(PermissionError):
                _set(_PR_CAPBSET_DROP, capability)


def end_with_parent() -> None:
    """Have this process killed when the thread that forked it ends."""
    _set(_PR_SET_PDEATHSIG, SIGKILL)


def set_child_subreaper(enable: bool) -> None:
    """Become the parent of every descendant whose own parent ends, or stop being that."""
    _set(_PR_SET_CHILD_SUBREAPER, enable)


def set_no_new_privileges() -> None:
    """Give up for good, for this process and what it executes, gaining privileges by setuid or file capabilities."""
    _set(_PR_SET_NO_NEW_PRIVS, 1)


def set_seccomp_filter(program: int) -> None:
    """Have system calls of this thread, and of all that it starts, judged by a struct sock_fprog at this address.

    seccomp(2) can do more, but has another number on each architecture, and for programs of 32 bits another one.
    """
    _set(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program)
