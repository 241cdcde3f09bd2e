"""The mount API of Linux 5.2, which the standard library lacks, and mount(2) and umount2(2) for older kernels.

fsopen(2) makes a file system context, fsconfig(2) sets its parameters and creates it, fsmount(2) makes a mount of it
that is nowhere yet, mount_setattr(2) maps its ids, and move_mount(2) attaches it.  Every function raises ``OSError``.
The numbers of these system calls are the same on all architectures but alpha.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import struct
from typing import Self

__all__ = ["MS_RDONLY", "Context", "attach_new", "mount", "unmount"]

_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442

_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOUNT_ATTR_RDONLY = 1
_MOUNT_ATTR_IDMAP = 0x100000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
# struct mount_attr: attr_set, attr_clr, propagation, userns_fd
_MOUNT_ATTR = struct.Struct("=QQQQ")
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_MESSAGE_SIZE = 1024

MS_RDONLY = 1


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    # A plain int would be passed as a C int, and leave the upper half of the register to chance.
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _checked(_libc().syscall(ctypes.c_long(number), *words))


class Context:
    """A file system being configured.  ``fd`` is closed by the context manager."""

    def __init__(self, kind: str) -> None:
        self.fd = _syscall(_SYS_FSOPEN, kind.encode(), _CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def flag(self, name: str) -> None:
        """Set a parameter that has no value."""
        _syscall(_SYS_FSCONFIG, self.fd, _FSCONFIG_SET_FLAG, name.encode(), None, 0)

    def string(self, name: str, value: str) -> None:
        """Set a parameter."""
        _syscall(_SYS_FSCONFIG, self.fd, _FSCONFIG_SET_STRING, name.encode(), os.fsencode(value), 0)

    def create(self) -> None:
        """Create the file system from the parameters set."""
        _syscall(_SYS_FSCONFIG, self.fd, _FSCONFIG_CMD_CREATE, None, None, 0)

    def mount(self, *, read_only: bool) -> int:
        """Return the descriptor of a new mount, attached nowhere; it goes when that is closed."""
        return _syscall(_SYS_FSMOUNT, self.fd, _CLOEXEC, _MOUNT_ATTR_RDONLY if read_only else 0)

    def messages(self) -> list[str]:
        """Return what the kernel has to say about the last failure; often nothing."""
        lines = []
        with contextlib.suppress(OSError):  # ENODATA ends it
            while line := os.read(self.fd, _MESSAGE_SIZE):
                lines.append(line.decode(errors="replace").strip().removeprefix("e ").removeprefix("w "))
        return lines


def attach_new(context: Context, path: str, *, read_only: bool, idmap: int | None = None) -> None:
    """Make a mount of a created context and attach it at a directory.

    ``idmap`` is a descriptor of the user namespace to whose ids the owners in the file system are mapped.
    """
    mount = context.mount(read_only=read_only)
    try:
        if idmap is not None:
            attributes = _MOUNT_ATTR.pack(_MOUNT_ATTR_IDMAP, 0, 0, idmap)
            _syscall(_SYS_MOUNT_SETATTR, mount, b"", _AT_EMPTY_PATH, attributes, len(attributes))
        _syscall(_SYS_MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(mount)


def mount(source: str, path: str, kind: str, flags: int, options: str) -> None:
    """Mount in the old way."""
    _checked(
        _libc().mount(
            os.fsencode(source), os.fsencode(path), kind.encode(), ctypes.c_ulong(flags), os.fsencode(options) or None
        )
    )


def unmount(path: str, *, lazy: bool) -> None:
    """Unmount what is mounted at ``path``; with ``lazy``, for everybody who has not got it open."""
    _checked(_libc().umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)))
