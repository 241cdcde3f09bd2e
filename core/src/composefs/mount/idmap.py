"""User namespaces, by the files that stand for them (namespaces(7); ioctl_nsfs(2), NS_GET_NSTYPE)."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from composefs.errors import UsageError
from composefs.linux.files import opened
from composefs.linux.ioctls import NS_GET_NSTYPE
from composefs.systemerrors import Doing

__all__ = ["user_namespace"]

_CLONE_NEWUSER = 0x10000000  # linux/sched.h


@contextlib.contextmanager
def user_namespace(path: str | None) -> Iterator[int | None]:
    """Open /proc/PID/ns/user, or a file that it is bound to; yield None for None.  Raises NotFoundError and others."""
    if path is None:
        yield None
        return
    what = f"opening the user namespace {path}"
    with opened(path, what) as fd:
        if not _is_user_namespace(fd):
            raise UsageError(f"{path} is not a user namespace", subject=path, hint="give /proc/PID/ns/user")
        with Doing(what):
            own = os.stat("/proc/self/ns/user")
        if os.path.samestat(os.fstat(fd), own):  # EPERM, in the kernel's words
            raise UsageError(f"{path} is the user namespace that we are in: leave out the idmap", subject=path)
        yield fd


def _is_user_namespace(fd: int) -> bool:
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == _CLONE_NEWUSER
    except OSError:  # it is no namespace at all
        return False
