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
    """Where the objects of a commit may come from."""

    transport: Transport
    """By which metadata is fetched."""
    workers: Workers
    """By which files are fetched, and parts of the delta carried out."""
    held: Sequence[Holder]
    """What is asked for an object before it is fetched; the delta, if there is one, is the first of them."""
    sizes: BaseSizes
    """What the core tells of the objects to which bases among ``held`` refer."""
    note: Callable[[bytes, Entry], None] = lambda _id, _entry: None
    """Called with the id and the entry of every object that has come in."""
    delta: Applying | None = None
    """A static delta, whose objects are awaited and not fetched."""
    ahead: Ahead | None = None
    """The commit from which the delta starts."""

    def held_metadata(self, object_id: bytes) -> bytes | None:
        """Return the bytes of a metadata object that is held, checked against its id; None if there is none."""
        for holder in self.held:
            entry = holder.get(object_id)
            if entry is not None and entry.content is None and sha256(entry.data).digest() == object_id:
                return entry.data
        return None
