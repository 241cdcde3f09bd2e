"""Which file is fetched next: large ones first, one for each worker at a time.

A large file is fetched, inflated and then hashed by the core in sequence, while small ones keep everybody busy.  Were a
large one the last, the other processes would wait for it: 0.3 s of the 5 s that a Flatpak runtime takes.  Were all of
them fetched at once, they would fill the disk's cache before the core has taken the first: the next one waits for room,
and small ones go on meanwhile.

Files whose size is unknown (see :mod:`composefs_ostree.formats.sizes`) are fetched in the order of the walk.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Sizes(Protocol):
        """What knows the sizes of files."""

        def get(self, file_id: bytes, /) -> int | None:
            """Return a size in bytes, None if it is not known."""


__all__ = ["FetchQueue"]

_LARGE = 4_000_000
"""Bytes: what a static delta leaves beside itself is as large as this, unless it was made with other options."""

_ROOM = 240 << 20
"""Bytes that are staged, or on their way in large files; one that is larger than half of this counts as so large."""


class FetchQueue:
    """The files that wait to be fetched; its length is their number.

    ``sizes`` is called when the first file comes; ``parallel`` is how many large ones may be on their way, ``staged``
    how many bytes have arrived and wait for the core; both may change.  ``bytes`` is the size of all that came in, None
    as long as none is known.
    """

    def __init__(self, sizes: Callable[[], Sizes], parallel: int) -> None:
        self._sizes = sizes
        self._known: Sizes | None = None
        self.parallel = parallel
        self._small: deque[bytes] = deque()
        self._large: list[tuple[int, bytes]] = []
        self._fetching: dict[bytes, int] = {}
        self.staged = 0
        self.bytes: int | None = None

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    @property
    def large_bytes(self) -> int:
        """The size of the large files that wait."""
        return -sum(size for size, _ in self._large)

    @property
    def has_large(self) -> bool:
        """Whether the next one is large, and there is room for it."""
        if not self._large or len(self._fetching) >= self.parallel:
            return False
        return self.staged + sum(self._fetching.values()) + self._next_large() <= _ROOM

    def _next_large(self) -> int:
        return min(-self._large[0][0], _ROOM // 2)

    def add(self, file_id: bytes) -> None:
        """Append a file."""
        if self._known is None:
            self._known = self._sizes()
        size = self._known.get(file_id)
        if size is not None:
            self.bytes = (self.bytes or 0) + size
        if size is None or size < _LARGE:
            self._small.append(file_id)
        else:
            heappush(self._large, (-size, file_id))

    def take(self, count: int) -> list[bytes]:
        """Remove one large file, or up to ``count`` others; none while large ones are all that is left to wait for."""
        if self.has_large:
            size = self._next_large()
            file_id = heappop(self._large)[1]
            self._fetching[file_id] = size
            return [file_id]
        return [self._small.popleft() for _ in range(min(count, len(self._small)))]

    def arrived(self, file_id: bytes) -> None:
        """Note that a file is here."""
        self._fetching.pop(file_id, None)
