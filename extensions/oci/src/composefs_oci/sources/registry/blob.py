"""A blob of a registry, to its end even when connections break: the next one goes on where the last stopped.

Ranges are those of RFC 9110, section 14; from a registry that does not know them, what is here already is read again
and dropped.  That nothing was mixed up shows the digest, which whoever reads the blob checks over all of it.
"""

from __future__ import annotations

import re

from composefs_ext.errors import CorruptError, NetworkError
from composefs_oci.sources.registry.client import NOTHING_THERE, Client
from composefs_oci.sources.registry.http import Response
from composefs_oci.sources.registry.urls import shown

__all__ = ["BlobReader"]

_PIECE = 1 << 16
_PROGRESS = 1 << 20
"""Bytes after which a connection has been good for something, and patience is new."""

_RANGE = re.compile(r"bytes ([0-9]{1,19})-[0-9]{1,19}/(?:[0-9]{1,19}|\*)")


class BlobReader:
    """The bytes behind a URL, ``size`` of them."""

    def __init__(self, client: Client, url: str, size: int) -> None:
        """Open it; raise NotFoundError, PermissionDeniedError, NetworkError, or CorruptError for another size."""
        self._client = client
        self._url = url
        self._size = size
        self._position = 0
        self._good_until = 0
        self._ended_at = -1
        self._patience = client.patience()
        self._response: Response | None = None
        self._connect()

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most ``size``; none at the end, which may be too early or too late."""
        while True:
            response = self._response or self._connect()
            try:
                data = response.read(size)
                if not data and self._position < self._size and self._is_broken(response):
                    raise self._broken()
            except NetworkError as error:
                self.close()
                if self._position == self._size:  # nothing is missing but the sign that nothing follows
                    return b""
                self._patience.wait(error)
                continue
            self._position += len(data)
            if self._position - self._good_until >= _PROGRESS:
                self._good_until = self._position
                self._patience.reset()
            return data

    def _is_broken(self, response: Response) -> bool:
        """Tell whether an end that is too early is the connection's.

        Of what has no length nobody can tell the first time; what ends there again has no more.
        """
        if response.length is not None:
            return True
        is_again = self._position == self._ended_at
        self._ended_at = self._position
        return not is_again

    def close(self) -> None:
        """Let go of the connection."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _connect(self) -> Response:
        """Ask for what is still to come, as often as patience allows."""
        while True:
            try:
                return self._open()
            except NetworkError as error:
                self.close()
                self._patience.wait(error)

    def _open(self) -> Response:
        where = shown(self._url)
        response = self._client.ask(self._url, {"Range": f"bytes={self._position}-"} if self._position else {})
        self._response = response
        if response.status == NOTHING_THERE:
            self.close()
            raise CorruptError.at(
                where, f"it ends after {self._position} of {self._size} bytes", hint="have the image pushed there again"
            )
        begins_at = 0
        if response.status == 206:
            match = _RANGE.fullmatch(response.header("Content-Range"))
            if match is None or int(match[1]) != self._position:
                self.close()
                raise CorruptError.at(
                    where, "the registry sends another part than the one asked for", hint="the registry has a problem"
                )
            begins_at = self._position
        length = response.length
        if length is not None and begins_at + length != self._size:
            self.close()
            raise CorruptError(
                f"{where} has {begins_at + length} bytes, not the {self._size} that the manifest says",
                hint="have the image pushed there again",
                subject=where,
            )
        while begins_at < self._position:
            data = response.read(min(_PIECE, self._position - begins_at))
            if not data:
                raise self._broken()
            begins_at += len(data)
        return response

    def _broken(self) -> NetworkError:
        where = shown(self._url)
        return NetworkError.at(
            where,
            f"the connection was closed {self._size - self._position} bytes before the end",
            hint="check the network and run the same command again",
            retryable=True,
        )
