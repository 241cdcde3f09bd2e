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
    from composefs_ostree.committing.inodes import Inode, Listing

__all__ = ["Layers"]


class Layers:
    """The tree that is made of all; also a listing itself.

    Whoever lists one more tree puts its entries into ``root``, its jobs numbered from ``jobs``, and has it added.
    ``changes`` are those of the tree that is listed next: whoever lists it makes them on its directories, and they are
    made here on its files, as these are read.
    """

    def __init__(self) -> None:
        self.root = Directory()
        self.jobs = 0
        self.changes = Changes()
        self._listings: list[tuple[Listing, int, Changes]] = []
        self._firsts: list[int] = []
        self._number = 0  # of the listing that was read last: a worker's jobs come in their order

    def add(self, listing: Listing) -> None:
        """Take the jobs of a listing that has put its entries here."""
        self._listings.append((listing, self.jobs, self.changes))
        self._firsts.append(self.jobs)
        self.jobs += listing.jobs

    def read(self, job: int) -> Inode:
        """Open a job."""
        listing, first, changes = self._turn_to(job)
        inode = listing.read(job - first)
        return inode._replace(meta=changes.apply(inode.meta, changes.paths.jobs.get(job)))

    def where(self, job: int) -> str:
        """Return the path to name in errors."""
        listing, first, _ = self._turn_to(job)
        return listing.where(job - first)

    def close(self) -> None:
        """Close what is open."""
        self._listings[self._number][0].close()

    def _turn_to(self, job: int) -> tuple[Listing, int, Changes]:
        """Return the listing of a job, its first job and its changes; no other one has anything open."""
        number = bisect_right(self._firsts, job) - 1
        if number != self._number:
            self.close()
            self._number = number
        return self._listings[number]
