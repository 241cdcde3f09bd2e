"""What errors of the operating system become: a kind, the system's words, and a remedy.

Whoever meets an ``OSError`` says what was being done, and raises what :func:`from_os_error` makes of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from composefs.errors import (
    ComposefsError,
    InputOutputError,
    NoSpaceError,
    NotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    ShortageError,
    UnsupportedError,
)

__all__ = [
    "LOST_PROCESS",
    "Doing",
    "from_os_error",
    "not_started",
    "out_of_memory",
    "without_proc",
]

_KEPT_FROM_ROOT = (
    "look for an immutable file (lsattr), a file system without links such as FAT, or a container's limits"
)
_MORE_MEMORY = "raise the limit of memory, ulimit -v, or free some"
_WANT_OF_MEMORY = ("failed to map segment", "not enough memory")  # the loader's words for it, and zstandard's
_BY_ERRNO: dict[int, type[ComposefsError]] = {
    errno.ENOENT: NotFoundError,
    errno.EROFS: ReadOnlyError,
    errno.EACCES: PermissionDeniedError,
    errno.EPERM: PermissionDeniedError,
    errno.EDQUOT: NoSpaceError,
    errno.ENOSPC: NoSpaceError,
    errno.ENOMEM: ShortageError,
    errno.EMFILE: ShortageError,
    errno.ENFILE: ShortageError,
}
"""The class for an error of the system; all others are InputOutputErrors."""
_REMEDIES = {
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "check the owner and mode, or run as root",
    errno.EPERM: "check the owner and mode, or run as root",
    errno.EDQUOT: "remove files of yours, or have your quota raised; quota -s shows it",
    errno.ENOSPC: "free some space and run the command again",
    errno.ENOMEM: _MORE_MEMORY,
    errno.ENOSYS: "the kernel lacks this system call, or a container forbids it",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "the whole machine has too many files open",
    errno.EISDIR: "give a file, not a directory",
    errno.ENOTDIR: "it must be a directory, and no symlink",
    errno.ELOOP: "a symlink is not followed here, or leads to itself",
    errno.ENAMETOOLONG: "a name has at most 255 bytes, a path 4,095",
    errno.EFBIG: "raise the limit of a file's size, ulimit -f, or use a file system that takes larger ones",
    errno.EXDEV: "a repository has to be on one file system: see with findmnt what is mounted inside of it; on btrfs "
    "none of the directories in it may be a subvolume",
    errno.EOVERFLOW: "this mount or container maps your user or group to none: run as one that it maps",
    errno.EIO: "the disk or the connection to it fails; the kernel's log tells more: dmesg",
    errno.ENOLCK: "its file server gives no locks: mount with nfsvers=4, or with nolock if no other machine writes",
    errno.ESTALE: "the file or its directory was removed at the file server: run the command again",
}
"""What to do about errors of the system."""

LOST_PROCESS = "see whether the system ran out of memory, and run the command again"
"""What to do about a process that ended without a word: no other reason is as frequent."""


def out_of_memory(error: BaseException) -> ComposefsError | None:
    """Return the error for a lack of memory if what was raised means that, else None."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in _WANT_OF_MEMORY):
        return ComposefsError("out of memory", hint=_MORE_MEMORY)
    return None


def without_proc(what: str) -> ComposefsError:
    """Make the error for something that needs /proc where that is not mounted; ``what`` is what was being done."""
    return UnsupportedError(f"{what}: /proc is not mounted", hint="mount it: mount -t proc proc /proc")


def not_started(error: OSError, what: str) -> ComposefsError:
    """Make the error for a process that could not be started; ``what`` is what was being done."""
    refused = from_os_error(error, what)
    if isinstance(error, BlockingIOError):
        refused.hint = "raise the limit of processes: ulimit -u, or that of the control group, pids.max"
    return refused


def from_os_error(error: OSError, what: str, *, absent: str | None = None) -> ComposefsError:
    """Make the error of ours for an ``OSError`` met while doing ``what`` ("writing object abc…"), with a remedy.

    ``absent`` is the remedy where a file is missing, which only the caller knows.
    """
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    subject = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    hint = _REMEDIES.get(number)
    if number == errno.ENOENT:
        if (subject or "").startswith("/proc/self/") and not os.path.exists("/proc/self"):
            return without_proc(what)
        hint = absent
    elif number == errno.EPERM and os.geteuid() == 0:
        hint = _KEPT_FROM_ROOT
    return _BY_ERRNO.get(number, InputOutputError)(f"{what}: {reason}", subject=subject, hint=hint)


class Doing:
    """A context manager that turns an ``OSError`` into an error of ours, which says that ``what`` was being done.

    ``turn`` makes that error.  Code that each file of a tree passes uses ``try`` and ``except``, which are faster.
    """

    __slots__ = ("_turn", "_what")

    def __init__(self, what: str, turn: Callable[[OSError, str], ComposefsError] = from_os_error) -> None:
        self._what = what
        self._turn = turn

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        """Raise the error of ours."""
        if isinstance(error, OSError):
            raise self._turn(error, self._what) from error
