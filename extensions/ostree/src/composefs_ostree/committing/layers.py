"""Trees over one another, as one tree to commit: what ``ostree commit`` makes of several ``--tree``.

A later file or symlink takes the place of an earlier one, a later directory's metadata that of an earlier one's, and
what is in both is in it.  A directory takes no file's place, and no file a directory's.  What options change of owners,
modes and attributes is changed here, of each tree for itself.
"""

from __future__ import annotations

from bisect import bisect_right

from composefs_ostree.committing.changes import Changes
from composefs_ostree.committing.inodes import Directory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.committing.inodes import Inode, Listing, Reader

__all__ = ["Layers"]


class Layers:
    """The tree that is made of all; also a listing itself.

    Whoever lists one more tree puts its entries into ``root``, its jobs numbered from ``jobs``, and has it added.
    ``changes`` are those of the tree that is listed next: whoever lists it makes them on its directories, and the
    reader here on its files.
    """

    def __init__(self) -> None:
        self.root = Directory()
        self.jobs = 0
        self.changes = Changes()
        self._listings: list[tuple[Listing, Changes]] = []
        self._firsts: list[int] = []

    def add(self, listing: Listing) -> None:
        """Take the jobs of a listing that has put its entries here."""
        self._listings.append((listing, self.changes))
        self._firsts.append(self.jobs)
        self.jobs += listing.jobs

    def reader(self) -> Reader:
        """Return what reads the jobs of all; called in each worker process."""
        return _LayersReader(self._listings, self._firsts)


class _LayersReader:
    """Has the reader of one listing at a time: a worker's jobs come in their order."""

    def __init__(self, listings: list[tuple[Listing, Changes]], firsts: list[int]) -> None:
        self._listings = listings
        self._firsts = firsts
        self._reader: Reader | None = None
        self._changes = Changes()
        self._jobs = range(0)

    def read(self, job: int) -> Inode:
        """Open a job."""
        inode = self._turn_to(job).read(job - self._jobs.start)
        return inode._replace(meta=self._changes.apply(inode.meta, self._changes.paths.jobs.get(job)))

    def where(self, job: int) -> str:
        """Return the path to name in errors."""
        return self._turn_to(job).where(job - self._jobs.start)

    def close(self) -> None:
        """Close what is open."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _turn_to(self, job: int) -> Reader:
        if self._reader is None or job not in self._jobs:
            self.close()
            number = bisect_right(self._firsts, job) - 1
            first = self._firsts[number]
            listing, self._changes = self._listings[number]
            self._jobs = range(first, first + listing.jobs)
            self._reader = listing.reader()
        return self._reader
