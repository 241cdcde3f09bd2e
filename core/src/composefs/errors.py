"""The errors of composefs: one table of kinds, exceptions and exit statuses, and what errors of the system become.

A kind is the word by which an error travels over the extension protocol (docs/protocol.md, "Errors") and by which
programs tell errors apart; the exception class carries it inside this process, and the command line turns it into an
exit status.  The three columns stand once, here, as class attributes.

A message says what failed and on which object, path or URL; ``hint`` says what to do about it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import ClassVar, Self

__all__ = [
    "KINDS",
    "LOST_PROCESS",
    "BusyError",
    "CancelledError",
    "ComposefsError",
    "ConflictError",
    "CorruptError",
    "Doing",
    "ExistsError",
    "ExtensionError",
    "FormatError",
    "InputOutputError",
    "MissingObjectError",
    "NetworkError",
    "NoSpaceError",
    "NotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "ReadOnlyError",
    "ShortageError",
    "TooLargeError",
    "UnsupportedError",
    "UsageError",
    "error_of_kind",
    "from_os_error",
    "not_started",
    "out_of_memory",
    "without_proc",
]


class ComposefsError(Exception):
    """Any failure that a user should read as one line; the catch-all kind ``other``.

    ``hint`` is the remedy, ``subject`` the object id, path or URL concerned, ``causes`` the messages below this one
    (outermost first), ``retryable`` whether the same call may succeed later.  ``offset`` is the byte, or the line of a
    text, where it was noticed that something is malformed.
    """

    kind: ClassVar[str] = "other"
    exit_status: int = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        subject: str | None = None,
        causes: tuple[str, ...] = (),
        retryable: bool = False,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.subject = subject
        self.causes = causes
        self.retryable = retryable
        self.offset = offset

    def __str__(self) -> str:
        return self.message  # a caller that knows more about the object may have changed it

    @property
    def told(self) -> str:
        """What went wrong and what to do about it, in one text."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(ComposefsError):
    """The command line or a call's arguments are wrong."""

    kind = "usage"
    exit_status = 2


class NotFoundError(ComposefsError):
    """A named repository, ref, stream, image, file or remote thing does not exist."""

    kind = "not_found"
    exit_status = 3


class ExistsError(ComposefsError):
    """A name is taken and may not be replaced."""

    kind = "exists"
    exit_status = 4


class ConflictError(ComposefsError):
    """What a caller expected to find was changed by somebody else."""

    kind = "conflict"
    exit_status = 4


class BusyError(ComposefsError):
    """A lock is held by another process."""

    kind = "busy"
    exit_status = 4


class CorruptError(ComposefsError):
    """Bytes do not have the digest, size or verity that they should have."""

    kind = "corrupt"
    exit_status = 5


class FormatError(ComposefsError):
    """A file or message is malformed."""

    kind = "invalid"
    exit_status = 5


class MissingObjectError(ComposefsError):
    """An id names an object that the repository does not hold."""

    kind = "missing_object"
    exit_status = 5


class NetworkError(ComposefsError):
    """A transfer failed."""

    kind = "network"
    exit_status = 6


class PermissionDeniedError(ComposefsError):
    """The user, or the extension's manifest, does not allow it."""

    kind = "permission"
    exit_status = 7


class ReadOnlyError(ComposefsError):
    """The repository cannot be written."""

    kind = "read_only"
    exit_status = 7


class NoSpaceError(ComposefsError):
    """The disk or a quota is full."""

    kind = "no_space"
    exit_status = 8


class TooLargeError(ComposefsError):
    """A limit was exceeded."""

    kind = "too_large"
    exit_status = 8


class InputOutputError(ComposefsError):
    """The operating system failed a read or write in some other way."""

    kind = "io"
    exit_status = 1


class ShortageError(InputOutputError):
    """The process may have no more descriptors or memory, which says nothing about what it was to read."""


class UnsupportedError(ComposefsError):
    """This version, kernel or repository cannot do it."""

    kind = "unsupported"
    exit_status = 9


class ProtocolError(ComposefsError):
    """The other side of the extension protocol broke a rule."""

    kind = "protocol_error"
    exit_status = 10


class ExtensionError(ComposefsError):
    """An extension died, never answered, or could not be started."""

    kind = "extension_failed"
    exit_status = 10


class CancelledError(ComposefsError):
    """The user interrupted or ended the command; the exit status is 128 + the number of the signal."""

    kind = "cancelled"
    exit_status = 130

    @classmethod
    def by_signal(cls, number: int, message: str) -> Self:
        """Return the error for another signal than SIGINT."""
        error = cls(message)
        error.exit_status = 128 + number
        return error


_CLASSES: list[type[ComposefsError]] = [ComposefsError, *ComposefsError.__subclasses__()]
_BY_KIND = {cls.kind: cls for cls in _CLASSES}

KINDS: tuple[str, ...] = tuple(_BY_KIND)
"""Every kind, ``other`` first."""


def error_of_kind(kind: str) -> type[ComposefsError]:
    """Return the exception class for a kind; an unknown kind is ``other``."""
    return _BY_KIND.get(kind, ComposefsError)


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
