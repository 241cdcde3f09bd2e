"""Where the objects of a commit may come from: what is held, a static delta, and the source."""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from composefs_ostree.deltas.applying import Applying
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.fetching.worker import Workers
    from composefs_ostree.formats.commit_stream import Entry, Holder
    from composefs_ostree.pulling.ahead import Ahead
    from composefs_ostree.pulling.confirming import BaseSizes

__all__ = ["Supply"]


class Supply(NamedTuple):
    """Where the objects of a commit may come from.

    ``held`` are asked for an object before it is fetched; of what bases among them refer to the core tells ``sizes``.
    Of a ``delta`` all is brought in first; it is the first of ``held``, and starts from the commit of ``ahead``.  The
    rest is fetched: metadata by ``transport``, files by ``workers``.  ``note`` is called with every file that has come
    in.
    """

    transport: Transport
    workers: Workers
    held: Sequence[Holder]
    sizes: BaseSizes
    note: Callable[[bytes, Entry], None] | None = None
    delta: Applying | None = None
    ahead: Ahead | None = None

    def held_metadata(self, object_id: bytes) -> bytes | None:
        """Return the bytes of a metadata object that is held, checked against its id; None if there is none."""
        for holder in self.held:
            entry = holder.get(object_id)
            if entry is not None and entry.content is None and sha256(entry.data).digest() == object_id:
                return entry.data
        return None
