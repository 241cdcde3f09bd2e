"""Fetching metadata objects within a bound on the bytes of all of them."""

from __future__ import annotations

from composefs_ext.errors import TooLargeError
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.formats.names import object_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.formats.names import ObjectType

__all__ = ["Budget", "MetadataFetch"]


class Budget:
    """The bytes of metadata that a commit, or what ``whose`` says, may still have.

    They are counted as they arrive: many objects are on their way at once, each of which may be large.
    """

    def __init__(self, size: int, whose: str = "the commit") -> None:
        self.left = size
        self._size = size
        self._whose = whose

    def spend(self, size: int) -> None:
        """Count bytes; raise TooLargeError when there are too many."""
        self.left -= size
        if self.left < 0:
            raise TooLargeError(
                f"the metadata of {self._whose} has more than {self._size} bytes",
                hint="a commit of this size cannot be kept as one stream",
            )


class MetadataFetch(Fetch):
    """The fetch of a dirtree or dirmeta, whose bytes count against a budget."""

    __slots__ = ("_budget", "kind", "object_id")

    def __init__(self, kind: ObjectType, object_id: bytes, budget: Budget) -> None:
        super().__init__(object_path(kind, object_id))
        self.kind = kind
        self.object_id = object_id
        self._budget = budget

    def begin(self) -> None:
        """Start again; what an earlier attempt has brought does not count."""
        self._budget.left += self._received
        super().begin()

    def _take(self, data: bytes) -> None:
        self._budget.spend(len(data))
        super()._take(data)
