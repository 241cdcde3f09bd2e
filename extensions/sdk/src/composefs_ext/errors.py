"""The errors of an extension: one class for each kind that the protocol knows.

Raise one of these from your handler and the user reads one line, and ``cfsctl`` exits with the status that belongs to
the kind (docs/protocol.md, "Errors").  The core's refusals arrive as the same classes, so ``except NotFoundError``
catches a ref that the repository does not have.

A message says what failed and on which object, path or URL; ``hint`` says what to do about it.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self

__all__ = [
    "KINDS",
    "MORE_PROCESSES",
    "UNREADABLE",
    "BusyError",
    "CancelledError",
    "ConflictError",
    "CoreGoneError",
    "CorruptError",
    "ExistsError",
    "ExtError",
    "FormatError",
    "InputOutputError",
    "MissingObjectError",
    "NetworkError",
    "NoSpaceError",
    "NotFoundError",
    "PermissionDeniedError",
    "ProtocolError",
    "ReadOnlyError",
    "TooLargeError",
    "UnsupportedError",
    "UsageError",
    "from_exception",
    "from_wire",
    "to_wire",
]

SERVER_ERROR = -32000
"""JSON-RPC's code for an error whose meaning is in ``data.kind``; the other codes in use are on the classes."""

_MESSAGE_CHARACTERS = 4096
_CAUSES = 20


class ExtError(Exception):
    """Any failure that a user should read as one line; the catch-all kind ``other``.

    ``subject`` is the object id, path or URL concerned, ``causes`` the messages below this one (outermost first),
    ``retryable`` whether the same call may succeed later.
    """

    kind: ClassVar[str] = "other"
    code: ClassVar[int] = SERVER_ERROR

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        subject: str | None = None,
        causes: tuple[str, ...] = (),
        retryable: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.subject = subject
        self.causes = causes
        self.retryable = retryable

    @classmethod
    def at(
        cls,
        where: str,
        reason: str,
        *,
        hint: str | None = None,
        causes: tuple[str, ...] = (),
        retryable: bool = False,
    ) -> Self:
        """Return the error of the object, path or URL ``where``: with that before the reason, and as its subject."""
        return cls(f"{where}: {reason}", hint=hint, subject=where, causes=causes, retryable=retryable)

    def __str__(self) -> str:
        return self.message  # a caller that knows more about the object may have changed it


class UsageError(ExtError):
    """The command line or a call's parameters are wrong."""

    kind = "usage"
    code = -32602


class NotFoundError(ExtError):
    """A named repository, ref, stream, image, file or remote thing does not exist."""

    kind = "not_found"


class ExistsError(ExtError):
    """A name is taken and may not be replaced."""

    kind = "exists"


class ConflictError(ExtError):
    """What a caller expected to find was changed by somebody else."""

    kind = "conflict"


class BusyError(ExtError):
    """A lock is held by another process."""

    kind = "busy"


class CorruptError(ExtError):
    """Bytes do not have the checksum or size that they should have."""

    kind = "corrupt"


class FormatError(ExtError):
    """A file or message is malformed."""

    kind = "invalid"


class MissingObjectError(ExtError):
    """An id names an object that the repository does not hold."""

    kind = "missing_object"


class NetworkError(ExtError):
    """A transfer failed."""

    kind = "network"


class PermissionDeniedError(ExtError):
    """The user, or the manifest, does not allow it."""

    kind = "permission"


class ReadOnlyError(ExtError):
    """The repository cannot be written."""

    kind = "read_only"


class NoSpaceError(ExtError):
    """The disk or a quota is full."""

    kind = "no_space"


class TooLargeError(ExtError):
    """A limit was exceeded."""

    kind = "too_large"


class InputOutputError(ExtError):
    """The operating system failed a read or write in some other way."""

    kind = "io"


class UnsupportedError(ExtError):
    """This version, kernel or repository cannot do it."""

    kind = "unsupported"


class ProtocolError(ExtError):
    """The other side broke a rule of the protocol."""

    kind = "protocol_error"
    code = -32600


class CancelledError(ExtError):
    """The user interrupted the command.  Clean up and let it pass; nothing can be published any more."""

    kind = "cancelled"


class CoreGoneError(CancelledError):
    """The core closed the conversation: there is nobody left to answer."""


UNREADABLE = (CorruptError, FormatError, InputOutputError, MissingObjectError)
"""What reading something of the repository raises if it is damaged, or lacks a part: fetching it again may mend it."""

MORE_PROCESSES = "raise the limit of processes: ulimit -u, or that of the control group, pids.max"
"""What to do where no further process or thread may be started."""

_CLASSES: list[type[ExtError]] = [ExtError, *ExtError.__subclasses__()]
_BY_KIND = {cls.kind: cls for cls in _CLASSES}

KINDS = tuple(_BY_KIND)
"""Every kind that an extension can send, ``other`` first."""


def to_wire(error: ExtError) -> dict[str, Any]:
    """Return the ``error`` member of a JSON-RPC answer.  Overlong texts are cut, so that it always fits a line."""
    data: dict[str, Any] = {"kind": error.kind}
    if error.hint:
        data["hint"] = error.hint[:_MESSAGE_CHARACTERS]
    if error.subject:
        data["subject"] = error.subject[:_MESSAGE_CHARACTERS]
    if error.causes:
        data["causes"] = [cause[:_MESSAGE_CHARACTERS] for cause in error.causes[:_CAUSES]]
    if error.retryable:
        data["retryable"] = True
    return {"code": error.code, "message": error.message[:_MESSAGE_CHARACTERS], "data": data}


def from_wire(error: object) -> ExtError:
    """Build the exception for an ``error`` member, or for the ``error`` of one row.  Unknown kinds are ``other``."""
    members = error if isinstance(error, dict) else {}
    data = members.get("data", members)  # a row's error carries kind and hint beside its message
    if not isinstance(data, dict):
        data = {}
    causes = data.get("causes")
    cls = _BY_KIND.get(str(data.get("kind")), ExtError)
    return cls(
        str(members.get("message", "the core refused the call without a message")),
        hint=_text(data.get("hint")),
        subject=_text(data.get("subject")),
        causes=tuple(map(str, causes)) if isinstance(causes, list) else (),
        retryable=data.get("retryable") is True,
    )


def from_exception(error: BaseException, written: str | None = None) -> ExtError:
    """Return the error to report for whatever a handler raised; one that nobody expected becomes one line.

    ``written`` is the directory that was written to: it is named in an error that only writing meets, a full disk or a
    file that may not grow, where the system's error names no file.
    """
    match error:
        case ExtError():
            return error
        case KeyboardInterrupt():
            return CancelledError("interrupted")
        case OSError():
            return _from_os_error(error, written)
        case _ if isinstance(error, MemoryError) or any(words in str(error) for words in _WANT_OF_MEMORY):
            return ExtError("out of memory", hint=_MORE_MEMORY)
        case RuntimeError() if str(error) == _NO_THREAD:
            return ExtError("a thread cannot be started", hint=MORE_PROCESSES)
        case ImportError() if not str(error).startswith("cannot import name"):  # which whoever wrote that has mistyped
            return UnsupportedError(f"a library cannot be loaded: {error}", hint="install it for its Python")
        case _:
            words = " ".join([f"internal error: {type(error).__name__}:", *str(error).split()])
            return ExtError(
                words,
                hint="this is a defect of the extension; run again with -v -v to see where it happened",
            )


_KEPT_FROM_ROOT = (
    "look for an immutable file (lsattr), a file system without links such as FAT, or a container's limits"
)
_MORE_QUOTA = "remove files of yours, or have your quota raised; quota -s shows it"
_MORE_MEMORY = "raise the limit of memory, ulimit -v, or free some"
_WANT_OF_MEMORY = ("failed to map segment", "not enough memory")  # the loader's words for it, and zstandard's
_NO_THREAD = "can't start new thread"  # Python's words, as it keeps the system's error to itself
_REMEDIES = {
    errno.ENOMEM: _MORE_MEMORY,
    errno.ENOSYS: "the kernel lacks this system call, or a container forbids it",
    errno.EMFILE: "raise the limit of open files: ulimit -n",
    errno.ENFILE: "the whole machine has too many files open",
    errno.EISDIR: "give a file, not a directory",
    errno.ELOOP: "a symlink is not followed here, or leads to itself",
    errno.EFBIG: "raise the limit of a file's size, ulimit -f, or use a file system that takes larger ones",
    errno.EIO: "the disk or the connection to it fails; the kernel's log tells more: dmesg",
    errno.ENOLCK: "its file server gives no locks: mount with nfsvers=4, or with nolock if no other machine writes",
    errno.ESTALE: "the file or its directory was removed at the file server: run the command again",
}
"""What to do about errors of the system that have no kind of their own."""


def _from_os_error(error: OSError, written: str | None) -> ExtError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    subject = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    if subject is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        subject = written
    message = f"{subject}: {reason}" if subject else reason
    match error.errno:
        case errno.ENOENT:
            return NotFoundError(message, subject=subject)
        case errno.EROFS:
            return ReadOnlyError(message, subject=subject, hint="the file system is mounted read-only")
        case errno.EPERM if os.geteuid() == 0:
            return PermissionDeniedError(message, subject=subject, hint=_KEPT_FROM_ROOT)
        case errno.EACCES | errno.EPERM:
            return PermissionDeniedError(message, subject=subject, hint="check the owner and mode")
        case errno.EDQUOT:
            return NoSpaceError(message, subject=subject, hint=_MORE_QUOTA)
        case errno.ENOSPC:
            return NoSpaceError(message, subject=subject, hint="free some space and run the command again")
        case _:
            return InputOutputError(message, subject=subject, hint=_REMEDIES.get(error.errno or 0))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
