"""The files of a repository's summary: verified as the remote wants it, and not fetched again while they are the same.

What is kept from an earlier run is believed no more than what comes from the server: signatures are checked each time.
"""

from __future__ import annotations

from composefs_ext.errors import CorruptError
from composefs_ostree.fetching.blame import Blaming
from composefs_ostree.fetching.conditional import Conditions
from composefs_ostree.fetching.transport import Fetch, fetched, read, read_all
from composefs_ostree.formats.names import MAX_METADATA
from composefs_ostree.remotes.kept import Kept, keep, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from composefs_ext import Core
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.signatures.policy import Policy

    _Fetched = TypeVar("_Fetched")

__all__ = ["SummaryFiles"]


class SummaryFiles:
    """Files that a transport brings and ``policy`` lets pass; they are kept, unless the repository ``is_near``.

    ``next_mirror`` puts another mirror first and is False when there is none left.
    """

    def __init__(
        self, core: Core, transport: Transport, policy: Policy, next_mirror: Callable[[], bool], *, is_near: bool
    ) -> None:
        self._core = core
        self._transport = transport
        self._policy = policy
        self._is_near = is_near
        self._cache = None if is_near else core.cache
        self._next_mirror = next_mirror
        self.where = transport.where
        self.are_signed = policy.is_on

    def obtain(self, path: str, fetch: Callable[[str, Kept | None], _Fetched]) -> _Fetched:
        """Return what ``fetch`` makes of a file, given how to name the file and what is kept of it.

        Where that raises CorruptError it is called again: first without what is kept, as that may not fit what the
        server has, then for one mirror after the other.
        """
        while True:
            where = self.where(path)
            kept = self.kept(where)
            try:
                return fetch(where, kept)
            except CorruptError as error:
                if kept is not None:
                    try:
                        return fetch(where, None)
                    except CorruptError:
                        pass
                if not self._next_mirror():
                    raise
                self._core.log("warning", f"{error.message}; trying the next mirror")

    def fetch_if_changed(self, path: str, kept: Kept | None, *beside: Fetch) -> tuple[bytes | None, Conditions]:
        """Return the file that is there now, None if there is none, and what tells it from others.

        What is to be read ``beside`` it is read at the same time: the server may be far away.
        """
        conditions = Conditions() if kept is None else kept.conditions
        fetch = Fetch(path, MAX_METADATA, conditions)
        read_all(self._core, self._transport, [fetch, *beside])
        data = fetched(self._transport, fetch)
        if conditions.unchanged:
            assert kept is not None
            data = kept.data
        return data, conditions

    def read(self, path: str, limit: int = MAX_METADATA) -> bytes | None:
        """Return a file, None if there is none."""
        return read(self._core, self._transport, path, limit)

    def kept(self, where: str) -> Kept | None:
        """Return what is kept under a name."""
        return load(self._cache, where)

    def keep(self, where: str, data: bytes, conditions: Conditions) -> None:
        """Keep what has come, and what to ask with the next time."""
        keep(self._cache, where, Kept(data, conditions.etag, conditions.last_modified))

    def verify(self, data: bytes, where: str, signature: bytes | None) -> None:
        """Raise CorruptError unless a file is signed as the remote wants it; ``signature`` is its detached metadata."""
        if not self.are_signed:
            return
        from composefs_ostree.signatures.checking import UnfitError, verify
        from composefs_ostree.signatures.detached import parse_detached

        with Blaming(f"{where}.sig"):
            metadata = {} if signature is None else parse_detached(signature, f"{where}.sig")
        try:
            verify(data, metadata, self._policy, where)
        except UnfitError as error:
            if not self._is_near:
                update = "just after an update a cache may have one of both from before: try again later"
                error.hint = f"{error.hint}; {update}"
            raise
