"""A delta that is being applied: which parts are to do, which objects they are going to bring, and what has come.

The pull (:mod:`composefs_ostree.pulling.pull`) gives parts to the workers that fetch its files.  Meanwhile it walks the
tree, and awaits what a part is going to bring.  A part is unpacked by the worker that carries it out, so that several
are decoded at a time and no content crosses from process to process.
"""

from __future__ import annotations

from collections import deque

from composefs_ext.errors import MissingObjectError, NotFoundError, TooLargeError, UnsupportedError
from composefs_ostree.deltas.output import METADATA
from composefs_ostree.fetching.metadata_fetch import Budget
from composefs_ostree.held.storing import metadata_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from composefs_ext import Core
    from composefs_ext.errors import ExtError
    from composefs_ext.progress import Progress
    from composefs_ostree.deltas.old_files import OldFiles
    from composefs_ostree.deltas.superblock import Delta
    from composefs_ostree.fetching.stage import Row
    from composefs_ostree.formats.commit_stream import Entry, Holder

__all__ = ["Applying"]

_USELESS = (MissingObjectError, NotFoundError, TooLargeError, UnsupportedError)
"""What makes a delta useless though nobody altered it: a part or an old file is gone, or it is beyond our limits."""


class Applying:
    """A delta on its way in, which holds what has come of it.

    ``parts`` counts the parts that were begun, ``metadata`` and ``files`` the objects that they have brought;
    ``fallbacks`` are the files to fetch beside the parts, of which ``sizes`` tells, as not every commit does.
    """

    def __init__(self, core: Core, delta: Delta, held: Sequence[Holder] = (), alone: OldFiles | None = None) -> None:
        """``held`` is what may have files of the new commit already, such as the cache of an interrupted pull.

        ``alone`` is for a delta whose source has nothing beside it: the files of the old commit.  Nothing then stands
        in for what the delta does not bring.  If there are objects beside it, None, parts whose files are all held are
        left out: their metadata come as without a delta, and so do files that turn out to be gone.  Left out in any
        case are parts that make nothing, and fallbacks that are held.
        """
        self._alone = alone
        self.parts = 0
        self.metadata = 0
        self.files = 0
        self.sizes = delta.fallbacks
        self.fallbacks = [file_id for file_id in delta.fallbacks if not _all_held([file_id], held)]
        self._core = core
        self._delta = delta
        self._to_do: deque[int] = deque()
        self._coming_files = set(self.fallbacks)
        self._coming_metadata: set[bytes] = set()
        for number, part in enumerate(delta.parts):
            files, metadata = part.ids()
            if part.objects and not (alone is None and _all_held(files, held)):
                self._to_do.append(number)
                self._coming_files.update(files)
                self._coming_metadata.update(metadata)
        self._entries: dict[bytes, Entry] = {}
        self._budget = Budget(metadata_limit(core), "the delta")
        self._progress: Progress | None = None

    @property
    def has_parts(self) -> bool:
        """Whether there are parts that were not begun."""
        return bool(self._to_do)

    def next_part(self) -> tuple[int, int]:
        """Return the number of the next part and how many objects it makes."""
        if self._progress is None:
            total = sum(self._delta.parts[number].plain for number in self._to_do)
            self._progress = self._core.progress("delta", total=total, unit="bytes")
        self.parts += 1
        number = self._to_do.popleft()
        return number, self._delta.parts[number].object_count

    def awaits_file(self, file_id: bytes) -> bool:
        """Tell whether a file is going to come of the delta, or beside it."""
        return file_id in self._coming_files

    def awaits_metadata(self, object_id: bytes) -> bool:
        """Tell whether a metadata object is going to come."""
        return object_id in self._coming_metadata

    def miss(self, file_id: bytes) -> None:
        """Hear that a held file is gone; raise MissingObjectError, which says how, if nothing is going to bring it."""
        if self._alone is not None and not self.awaits_file(file_id):
            self._alone.read(file_id)

    def get(self, object_id: bytes) -> Entry | None:
        """Return an object that has come."""
        return self._entries.get(object_id)

    def add(self, object_id: bytes, entry: Entry) -> None:
        """Take in an object that has its id; raise TooLargeError when there is too much of them."""
        self._budget.spend(len(entry.data))
        self._entries[object_id] = entry

    def count(self, row: Row) -> None:
        """Count an object that a part has made."""
        assert self._progress is not None
        _, data, size, _ = row
        if size == METADATA:
            size = len(data)
            self.metadata += 1
        else:
            self.files += 1
        self._progress.advance(size, total=max(self._progress.total or 0, self._progress.done + size))

    def finish(self) -> None:
        """Show that everything has come."""
        if self._progress is not None:
            self._progress.finish()

    def is_useless_after(self, error: ExtError) -> bool:
        """Tell whether an error of a part means that objects are to be fetched instead, and not that it was altered."""
        return self._alone is None and isinstance(error, _USELESS)

    def forsake(self, error: ExtError, unfinished: int) -> None:
        """Say that the delta cannot be used further, nor parts that are ``unfinished``; but the fallbacks will come."""
        self._core.log("warning", f"the delta is not used further, objects are fetched one by one: {error.message}")
        self.parts -= unfinished
        self._to_do.clear()
        self._coming_metadata.clear()
        self._coming_files.intersection_update(self.fallbacks)


def _all_held(file_ids: Sequence[bytes], held: Sequence[Holder]) -> bool:
    return bool(file_ids) and all(any(holder.get(file_id) for holder in held) for file_id in file_ids)
