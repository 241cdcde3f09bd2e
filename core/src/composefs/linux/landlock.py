"""Landlock: a process gives up, for good, files and sockets that it does not need, the network, and signals to others.

landlock(7) and the kernel's userspace-api/landlock.rst describe it.  What the running kernel does not know is left
out, as the kernel's documentation advises: an older kernel confines less.  No version holds back chmod, chown, utime,
setxattr and the like, on files that the process can look up and owns (or, as root, on any that it can look up).
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from enum import IntFlag

from composefs.linux.closing import Closing
from composefs.linux.libc import syscall

__all__ = ["Access", "Ruleset", "abi"]

# The same numbers on every architecture, as all newer system calls have.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REMOVE_AND_MAKE = sum(1 << bit for bit in range(4, 13))  # REMOVE_DIR to MAKE_SYM
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15
_RESOLVE_UNIX = 1 << 16
_TCP = 1 << 0 | 1 << 1  # BIND_TCP, CONNECT_TCP
_UDP = 1 << 2 | 1 << 3  # BIND_UDP, CONNECT_SEND_UDP
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_SCOPE_SIGNAL = 1 << 1

# The version of the ABI that brought a right: 6 is in Linux 6.12, 9 in 7.1, 10 in 7.2.
_ABI_OF_RIGHTS = {_REFER: 2, _TRUNCATE: 3, _IOCTL_DEV: 5, _RESOLVE_UNIX: 9}
_NET_ABI = 4
_SCOPE_ABI = 6
_UDP_ABI = 10

_RULESET = struct.Struct("=QQQ")  # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped
_PATH_BENEATH = struct.Struct("=Qi")  # struct landlock_path_beneath_attr: allowed_access, parent_fd


class Access(IntFlag):
    """What may be done to a file or, with all beneath it, to a directory."""

    READ = _READ_FILE | _READ_DIR
    EXECUTE = _EXECUTE
    WRITE = _WRITE_FILE | _REMOVE_AND_MAKE | _REFER | _TRUNCATE
    CONNECT = _RESOLVE_UNIX


_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _RESOLVE_UNIX


def abi() -> int:
    """Return the version of Landlock that the kernel has, 0 if it has none or it is turned off."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


class Ruleset(Closing):
    """What a process will be left with: of files only what :meth:`allow` names.

    From ABI 9 on that holds for others' Unix sockets with a path too.  Without ``network`` the process loses TCP (from
    ABI 4 on), UDP (10) and others' abstract Unix sockets (6); signals to processes that are not confined by the same
    ruleset are always refused (6).  On a kernel without Landlock the ruleset is ``empty``, and confines nothing.
    """

    def __init__(self, *, network: bool) -> None:
        version = abi()
        self.empty = version == 0
        self._fd = -1
        if self.empty:
            return
        rights = int(Access.READ | Access.EXECUTE | Access.WRITE | Access.CONNECT) | _IOCTL_DEV
        self._handled = rights & ~sum(right for right, since in _ABI_OF_RIGHTS.items() if version < since)
        net = _TCP | _UDP if version >= _UDP_ABI else _TCP
        scoped = _SCOPE_SIGNAL | (0 if network else _SCOPE_ABSTRACT_UNIX_SOCKET)
        attributes = _RULESET.pack(self._handled, 0 if network else net, scoped)
        # An older kernel refuses a structure that is longer than its own, so it gets no more than it knows.
        size = 24 if version >= _SCOPE_ABI else 16 if version >= _NET_ABI else 8
        self._fd = syscall(_CREATE_RULESET, attributes, size, 0)

    def allow(self, path: str, access: Access) -> None:
        """Allow ``access`` to a file, or to a directory and all beneath; pass over pipes and what does not exist.

        Whoever may read a socket that is named itself may connect to it, as there is nothing else to read.
        """
        if self.empty:
            return
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISSOCK(mode) and access & Access.READ:
                access |= Access.CONNECT
            rights = access & self._handled
            if not stat.S_ISDIR(mode):
                rights &= _ON_FILES
            if not rights:  # which the kernel takes for a mistake
                return
            syscall(_ADD_RULE, self._fd, _RULE_PATH_BENEATH, _PATH_BENEATH.pack(rights, fd), 0)
        except OSError as error:
            if error.errno != errno.EBADFD:  # what is in no file system that can be mounted: it is never held back
                raise
        finally:
            os.close(fd)

    def restrict_self(self) -> None:
        """Confine this thread, and all that it starts, for good.  It must have given up new privileges before."""
        if not self.empty:
            syscall(_RESTRICT_SELF, self._fd, 0)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
