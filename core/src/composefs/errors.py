"""The errors of composefs: one table of kinds, exceptions and exit statuses.

A kind is the word by which an error travels over the extension protocol (docs/protocol.md, "Errors") and by which
programs tell errors apart; the exception class carries it inside this process, and the command line turns it into an
exit status.  The three columns stand once, here, as class attributes.

A message says what failed and on which object, path or URL; ``hint`` says what to do about it.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "KINDS",
    "BusyError",
    "CancelledError",
    "ComposefsError",
    "ConflictError",
    "CorruptError",
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
