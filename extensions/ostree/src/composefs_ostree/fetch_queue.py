"""Which file is fetched next: large ones first, one for each worker at a time.

A large file is fetched, inflated and then hashed by the core in sequence, while small ones keep everybody busy.  Were a
large one the last, the other processes would wait for it: 0.3 s of the 5 s that a Flatpak runtime takes.  Were all of
them fetched at once, they would fill the disk's cache before the core has taken the first.

Without sizes (see :mod:`composefs_ostree.sizes`), and while only few files are wanted, the order is that of the walk.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["FetchQueue"]

_LARGE = 4 << 20
_MANY = 512
"""Files from which on it pays to read the sizes: 20 ms for a Flatpak runtime's."""


class FetchQueue:
    """The files that wait to be fetched; its length is their number.

    ``sizes`` is called once, when many files wait; ``parallel`` is how many large ones may be on their way.  ``bytes``
    is the size of all that came in, None as long as it is unknown.
    """

    def __init__(self, sizes: Callable[[], Mapping[bytes, int]], parallel: int) -> None:
        self._sizes = sizes
        self._known: Mapping[bytes, int] | None = None
        self._parallel = parallel
        self._small: deque[bytes] = deque()
        self._large: list[tuple[int, bytes]] = []
        self._fetching: set[bytes] = set()
        self.bytes: int | None = None

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    def add(self, file_id: bytes) -> None:
        """Append a file."""
        if self._known is None:
            self._small.append(file_id)
            if len(self._small) >= _MANY:
                self._read_sizes()
        else:
            self._sort_in(file_id, self._known)

    def _read_sizes(self) -> None:
        self._known = known = self._sizes()
        waiting, self._small = self._small, deque()
        for file_id in waiting:
            self._sort_in(file_id, known)

    def _sort_in(self, file_id: bytes, known: Mapping[bytes, int]) -> None:
        size = known.get(file_id)
        if size is None:
            self._small.append(file_id)
            return
        self.bytes = (self.bytes or 0) + size
        if size < _LARGE:
            self._small.append(file_id)
        else:
            heappush(self._large, (-size, file_id))

    def take(self, count: int) -> list[bytes]:
        """Remove one large file, or up to ``count`` others; none while large ones are all that is left to wait for."""
        if self._large and len(self._fetching) < self._parallel:
            file_id = heappop(self._large)[1]
            self._fetching.add(file_id)
            return [file_id]
        return [self._small.popleft() for _ in range(min(count, len(self._small)))]

    def arrived(self, file_id: bytes) -> None:
        """Note that a file is here."""
        self._fetching.discard(file_id)
