"""The mount API of Linux 5.2, which the standard library lacks, and mount(2) and umount2(2).

fsopen(2) makes a file system context, fsconfig(2) sets its parameters and creates it, fsmount(2) makes a mount of it
that is nowhere yet, mount_setattr(2) maps its ids, and move_mount(2) attaches it.  Every function raises ``OSError``.
The numbers of these system calls are the same on all architectures but alpha.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Collection

from composefs.linux.closing import Closing, Descriptor
from composefs.linux.libc import checked, libc, syscall

__all__ = ["ATTRIBUTES", "LONGEST_STRING", "Context", "attach_new", "mount", "unmount"]

_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442

_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTR_IDMAP = 0x100000
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_SYMLINKS = 0x10
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
# struct mount_attr: attr_set, attr_clr, propagation, userns_fd
_MOUNT_ATTR = struct.Struct("=QQQQ")
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_MESSAGE_SIZE = 1024

LONGEST_STRING = 255
"""Bytes that the value of a parameter may have (fsconfig(2), EINVAL)."""

ATTRIBUTES = {
    "ro": (0x1, 0x1),
    "nosuid": (0x2, 0x2),
    "nodev": (0x4, 0x4),
    "noexec": (0x8, 0x8),
    "noatime": (0x10, 0x400),
    "strictatime": (0x20, 0x1000000),
    "nodiratime": (0x80, 0x800),
    "nosymfollow": (0x200000, 0x100),
}
"""What mount(8) calls the attributes of a mount: {name: (MOUNT_ATTR_… of fsmount(2), MS_… of mount(2))}."""


class Context(Closing):
    """A file system being configured.  ``fd`` is closed by the context manager."""

    def __init__(self, kind: str) -> None:
        self.fd = syscall(_SYS_FSOPEN, kind.encode(), _CLOEXEC)

    def close(self) -> None:
        """Close the descriptor; what was made of it stays."""
        os.close(self.fd)

    def flag(self, name: str) -> None:
        """Set a parameter that has no value."""
        syscall(_SYS_FSCONFIG, self.fd, _FSCONFIG_SET_FLAG, name.encode(), None, 0)

    def string(self, name: str, value: str) -> None:
        """Set a parameter."""
        syscall(_SYS_FSCONFIG, self.fd, _FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)

    def descriptor(self, name: str, fd: int) -> None:
        """Set a parameter to an open file, which must not be an O_PATH descriptor before Linux 6.14 (EBADF)."""
        syscall(_SYS_FSCONFIG, self.fd, _FSCONFIG_SET_FD, name.encode(), None, fd)

    def create(self) -> None:
        """Create the file system from the parameters set."""
        syscall(_SYS_FSCONFIG, self.fd, _FSCONFIG_CMD_CREATE, None, None, 0)

    def mount(self, attributes: Collection[str]) -> int:
        """Return the descriptor of a new mount, attached nowhere; it goes when that is closed."""
        return syscall(_SYS_FSMOUNT, self.fd, _CLOEXEC, sum(ATTRIBUTES[name][0] for name in attributes))

    def messages(self) -> list[str]:
        """Return what the kernel has to say about the last failure; often nothing."""
        lines = []
        with contextlib.suppress(OSError):  # ENODATA ends it
            while line := os.read(self.fd, _MESSAGE_SIZE):
                lines.append(line.decode(errors="replace").strip().removeprefix("e ").removeprefix("w "))
        return lines


def attach_new(context: Context, path: str, attributes: Collection[str], *, idmap: int | None = None) -> None:
    """Make a mount of a created context and attach it at a directory, or at that to which a symlink leads.

    ``attributes`` are names of ATTRIBUTES.  ``idmap`` is a descriptor of the user namespace to whose ids the owners
    in the file system are mapped.
    """
    with Descriptor(context.mount(attributes)) as mount:
        if idmap is not None:
            mapping = _MOUNT_ATTR.pack(_MOUNT_ATTR_IDMAP, 0, 0, idmap)
            syscall(_SYS_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, mapping, len(mapping))
        flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_SYMLINKS
        syscall(_SYS_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(path), flags)


def mount(source: str, path: str, kind: str, attributes: Collection[str], options: str) -> None:
    """Mount by the older system call of this name, whose options are one string."""
    flags = ctypes.c_ulong(sum(ATTRIBUTES[name][1] for name in attributes))
    checked(libc.mount(os.fsencode(source), os.fsencode(path), kind.encode(), flags, os.fsencode(options) or None))


def unmount(path: str, *, lazy: bool) -> None:
    """Unmount what is mounted at ``path``; with ``lazy``, at once for all but those who have something in it open."""
    checked(libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)))
