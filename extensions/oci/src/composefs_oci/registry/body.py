"""The body of an answer, read as it comes: bounded, and given up when next to nothing comes."""

from __future__ import annotations

from time import monotonic

from composefs_ext.errors import NetworkError, TooLargeError
from composefs_oci.registry.http import FAILURES, TIMEOUT, failure, number, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_oci.registry.http import Response

__all__ = ["Body", "read_body"]

_LOW_SPEED = 1000
_PIECE = 1 << 16


class Body:
    """The bytes of a response, without any decoding.

    A peer that sends less than 1000 bytes a second for the time after which silence counts as its end is given up; what
    the caller does in between does not count.
    """

    def __init__(self, response: Response, url: str) -> None:
        self._response = response
        self._url = url
        self._patience = max(1.0, number(TIMEOUT))
        self._seconds = 0.0
        self._bytes = 0

    def read(self, size: int, /) -> bytes:
        """Return what is there, at most ``size`` bytes; none at the end.  Raise NetworkError."""
        start = monotonic()
        try:
            # What a single read of the socket gives, so that a slow peer is noticed before all of it has come.
            data: bytes = self._response.read(size)
        except FAILURES as error:
            raise failure(self._url, error) from None
        self._seconds += monotonic() - start
        self._bytes += len(data)
        if self._seconds >= self._patience:
            if self._bytes < _LOW_SPEED * self._seconds:
                where = shown(self._url)
                raise NetworkError(
                    f"{where}: less than {_LOW_SPEED} bytes a second for {self._seconds:.0f} seconds",
                    hint="try again later",
                    subject=where,
                    retryable=True,
                )
            self._seconds, self._bytes = 0.0, 0
        return data

    def close(self) -> None:
        """Let go of the connection; one whose body was not read to its end is not used again."""
        self._response.close()


def read_body(response: Response, url: str, limit: int) -> bytes:
    """Return all of a small body; raise TooLargeError or NetworkError."""
    body = Body(response, url)
    pieces, size = [], 0
    while data := body.read(_PIECE):
        size += len(data)
        if size > limit:
            raise TooLargeError(f"{shown(url)} answers with more than {limit} bytes", subject=shown(url))
        pieces.append(data)
    expected = response.length
    if expected is not None and expected != size:
        raise NetworkError(
            f"{shown(url)}: the answer ends after {size} of {expected} bytes", subject=shown(url), retryable=True
        )
    return b"".join(pieces)
