"""Unmounting what was mounted here, and nothing else: umount2(2), or fusermount3(1) for users."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess

from composefs.errors import BusyError, NotFoundError, PermissionDeniedError
from composefs.linux import mountapi
from composefs.systemerrors import from_os_error

__all__ = ["unmount"]

SOURCE = "composefs"
_MOUNTINFO = "/proc/self/mountinfo"


def unmount(path: str | os.PathLike[str], *, lazy: bool = False) -> None:
    """Unmount the image mounted last at ``path``; with ``lazy``, out of sight now, and gone once nobody uses it.

    Raises NotFoundError if no image is mounted there, BusyError if it is in use, PermissionDeniedError.
    """
    where = os.path.realpath(path)
    kind, source = _mounted(where)
    if source != SOURCE:
        raise NotFoundError(
            f"no image is mounted at {os.fspath(path)}", subject=os.fspath(path), hint="umount(8) unmounts the rest"
        )
    try:
        _unmount(where, kind, lazy=lazy)
    except OSError as error:
        match error.errno:
            case errno.EBUSY:
                raise BusyError(
                    f"unmounting {os.fspath(path)}: it is in use",
                    subject=os.fspath(path),
                    hint="`fuser -vm` shows by whom; --lazy does not wait for them",
                    retryable=True,
                ) from error
            case errno.EPERM:
                raise PermissionDeniedError(
                    f"unmounting {os.fspath(path)}: not permitted", hint="it needs CAP_SYS_ADMIN: run as root"
                ) from error
        raise from_os_error(error, f"unmounting {os.fspath(path)}") from error


def _unmount(where: str, kind: str, *, lazy: bool) -> None:
    """Unmount; what a user has mounted by FUSE, that user unmounts with a program of libfuse.  Raises ``OSError``."""
    try:
        mountapi.unmount(where, lazy=lazy)
    except OSError as error:
        helper = shutil.which("fusermount3") or shutil.which("fusermount")
        if error.errno != errno.EPERM or helper is None or not kind.startswith("fuse"):
            raise
        done = subprocess.run([helper, "-u", *(["-z"] if lazy else []), where], capture_output=True, check=False)
        if done.returncode:
            raise OSError(errno.EBUSY if b"busy" in done.stderr else errno.EPERM, "") from error


def _mounted(where: str) -> tuple[str, str]:
    """Return type and source of the mount that is uppermost at a mountpoint, or blanks (proc_pid_mountinfo(5))."""
    found = "", ""
    with open(_MOUNTINFO, "rb") as file:
        for line in file:
            left, _, right = line.partition(b" - ")
            if _unescape(left.split(b" ")[4]) == where:
                kind, source, _ = right.split(b" ", 2)
                found = _unescape(kind), _unescape(source)
    return found


def _unescape(field: bytes) -> str:
    """Undo the octal escapes of blanks and backslashes."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field))
