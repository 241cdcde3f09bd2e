"""The body of an answer, read as it comes: bounded, its failures told in one line."""

from __future__ import annotations

from composefs_ext.errors import NetworkError, TooLargeError
from composefs_oci.sources.registry.failures import FAILURES, failure
from composefs_oci.sources.registry.urls import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_oci.sources.registry.http import Response

__all__ = ["Body", "read_body"]

_PIECE = 1 << 16


class Body:
    """The bytes of a response, without any decoding."""

    def __init__(self, response: Response, url: str) -> None:
        self._response = response
        self._url = url

    def read(self, size: int, /) -> bytes:
        """Return what is there, at most ``size`` bytes; none at the end.  Raise NetworkError."""
        try:
            return self._response.read(size)
        except FAILURES as error:
            raise failure(self._url, error) from None

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
