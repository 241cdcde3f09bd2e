"""Where a worker process gets content objects from: what it asks for, and the answer for archives over a transport.

Like a transport, :class:`Files` works on many objects at a time: ``start`` queues one, ``step`` does what can be done
without waiting.  What comes back for an object is a *row* (see :mod:`composefs_ostree.fetching.stage`) or its
failure.
"""

from __future__ import annotations

from composefs_ext.errors import from_exception, to_wire
from composefs_ostree.fetching.blame import blamed
from composefs_ostree.fetching.content import FileFetch
from composefs_ostree.formats.names import ObjectType, object_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from composefs_ostree.fetching.stage import Row, SmallContents
    from composefs_ostree.fetching.transport import Transport, Waitable

    Failure = tuple[bytes, dict[str, Any]]

    class Files(Waitable, Protocol):
        """The content objects of a repository, verified and staged on request."""

        def start(self, file_id: bytes, staged: str, /) -> None:
            """Queue an object; content too large for stream and packs goes to the new file ``staged``."""

        def step(self) -> Sequence[Row | Failure]:
            """Go on with what was started and return what has ended."""

        def where(self, file_id: bytes, /) -> str:
            """Return the URL or path of an object."""


__all__ = ["FetchedFiles", "failure"]


def failure(file_id: bytes, where: str, error: Exception) -> Failure:
    """Return what to send up for an object, given by its URL or path, that cannot be had: its id and the error."""
    return file_id, to_wire(blamed(where, from_exception(error)))


class FetchedFiles:
    """The content of an archive repository that a transport reaches."""

    def __init__(self, transport: Transport, small: SmallContents) -> None:
        self._transport = transport
        self._small = small
        self.descriptors = transport.descriptors
        self.timeout = transport.timeout

    def start(self, file_id: bytes, staged: str) -> None:
        """Queue the fetch of an object."""
        self._transport.start(FileFetch(file_id, staged, self._small))

    def where(self, file_id: bytes) -> str:
        """Return the URL or path of an object."""
        return self._transport.where(object_path(ObjectType.FILE, file_id))

    def step(self) -> list[Row | Failure]:
        """Go on with the transfers."""
        results: list[Row | Failure] = []
        for fetch in self._transport.step():
            assert isinstance(fetch, FileFetch)
            try:
                results.append(fetch.finish())
            except Exception as error:  # noqa: BLE001  the coordinator reports whatever goes wrong here
                fetch.discard()
                results.append(failure(fetch.file_id, self._transport.where(fetch.path), error))
        return results
