"""Errors of a repository's files: which file is to blame, by its URL or path, and what to do about it."""

from __future__ import annotations

from composefs_ext.errors import CorruptError, ExtError, FormatError, NotFoundError, TooLargeError

__all__ = ["DAMAGED_DELTA", "STAGING", "Blaming", "blamed"]

STAGING = "staging"
"""The subject of an error of writing there, which is not what is wrong with the file that is written."""

DAMAGED_DELTA = "the delta is damaged or altered on its way; get it again later, or pull with --no-delta"
_DAMAGED = "the source is damaged or altered on its way; try again later, or from another mirror"


def blamed(where: str, error: ExtError, remedy: str = _DAMAGED) -> ExtError:
    """Return the error to report for a file of the repository, given by its URL or path, that is not what it should be.

    ``remedy`` is for one that is damaged.  Errors of transfers and of the system already say what to do; they get the
    name if they have none.
    """
    match error:
        case ExtError(subject=subject) if subject == STAGING:
            reason = error.message.removeprefix(f"{STAGING}: ")
            return type(error)(f"{where} cannot be stored: {reason}", hint=error.hint, causes=error.causes)
        case NotFoundError():
            return NotFoundError(
                f"{where}: {error.message.removeprefix(f'{where}: ')}, although the commit needs it",
                hint=error.hint or "the source is incomplete or being changed; try again later, or from another mirror",
                subject=where,
            )
        case CorruptError() | FormatError() | TooLargeError():
            return type(error)(
                f"{where}: {error.message.removeprefix(f'{where}: ')}",
                hint=error.hint or remedy,
                subject=where,
            )
        case ExtError(subject=None):
            return type(error)(f"{where}: {error.message}", hint=error.hint, subject=where, causes=error.causes)
        case _:
            return error


class Blaming:
    """A context manager: errors raised in its block are blamed on a file, given by its URL or path (:func:`blamed`)."""

    def __init__(self, where: str, remedy: str = _DAMAGED) -> None:
        self._where = where
        self._remedy = remedy

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ExtError):
            raise blamed(self._where, error, self._remedy) from None
