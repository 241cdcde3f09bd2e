"""Pulling one commit: the coordinator.

It walks the tree (:mod:`composefs_ostree.pulling.walk`), deals the files that dirtrees name to worker processes, and
gives what they stage to the core, all at the same time in one loop around one ``select``.  The core is busy from the
first file on.  What is held already (a base commit, or the cache of an interrupted pull) is not fetched, once the core
has confirmed that it is still there (:mod:`composefs_ostree.pulling.gathering`).

What is on its way is bounded (:mod:`composefs_ostree.pulling.dealing`); what is kept in memory is metadata, 2 KB an
object.
"""

from __future__ import annotations

from contextlib import suppress

from composefs_ext.drafts import Draft
from composefs_ext.errors import CancelledError, ExtError
from composefs_ext.puts import Puts
from composefs_ostree.fetching.metadata_fetch import Budget, MetadataFetch
from composefs_ostree.fetching.transport import wait
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.held.dumptext import DumpText, dump_limit
from composefs_ostree.held.storing import metadata_limit
from composefs_ostree.held.tree import Tree
from composefs_ostree.pulling.dealing import deal
from composefs_ostree.pulling.gathering import Gathering
from composefs_ostree.pulling.walk import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.rows import Stored
    from composefs_ostree.deltas.applying import Applying
    from composefs_ostree.fetching.worker import Worker
    from composefs_ostree.held.excerpt import Excerpt
    from composefs_ostree.pulling.known import CommitObject
    from composefs_ostree.pulling.supply import Supply

__all__ = ["Pull"]

_MANY = 1000
"""Files that are still to come, above which the text of the tree is not begun: too many directories would lack some."""


class Pull:
    """One commit on its way in; ``run`` fetches everything.

    Then ``entries`` has every object of the commit by id, as its stream will.
    """

    def __init__(self, core: Core, wanted: CommitObject, excerpt: Excerpt, supply: Supply, *, keep_nul: bool) -> None:
        """``excerpt`` is what is wanted of the commit; ``keep_nul`` is as in :class:`DumpText`."""
        self._core = core
        self._commit = wanted.commit
        self._excerpt = excerpt
        self._transport = supply.transport
        self._delta = supply.delta
        self._keep_nul = keep_nul
        self.entries = {wanted.commit_id: Entry(wanted.data, None), **excerpt.entries}
        budget = Budget(metadata_limit(core))
        budget.spend(sum(len(entry.data) for entry in self.entries.values()))
        self._workers = supply.workers
        self._metadata_progress = core.progress("metadata")
        self._files_progress = core.progress("files", unit="bytes")
        self._files = Gathering(core, wanted.commit, supply, budget)
        self._walk = Walk(supply, budget, self._files.want, self._metadata_progress)
        self._puts = Puts(core)
        self._draft = Draft(core)
        self._text: DumpText | None = None

    @property
    def brought(self) -> tuple[int, int, int]:
        """How many metadata objects and files came from the source, and how many parts of a delta."""
        metadata, files = self._walk.fetched, self._files.fetched
        if self._delta is None:
            return metadata, files, 0
        return metadata + self._delta.metadata, files + self._delta.files, self._delta.parts

    def run(self) -> Pending[Stored]:
        """Fetch all that is wanted, hand its files to the core, and have that make the image."""
        try:
            self._walk.want(self._excerpt.roots)
            self._files.want(self._excerpt.files)
            while not self._is_done():
                self._turn()
            # Before all else: the core has nothing to do until it has the rest of the text.
            self._begun_text().finish()
            image = self._core.image_put(*self._draft.finish())
        except ExtError as error:
            if not isinstance(error, CancelledError):
                self._settle()
            raise
        self._metadata_progress.finish()
        self._files_progress.finish()
        if self._delta is not None:
            self._delta.finish()
        self.entries |= self._walk.entries
        self.entries |= self._files.of_commit()
        return image

    def _begun_text(self) -> DumpText:
        """Return the text of the tree, of which all directories have come; what is written of it waits for files."""
        if self._text is None:
            tree = Tree(self._commit, self._walk.trees, self._walk.metas, self._files.here).grafted(self._excerpt)
            self._text = DumpText(tree, self._draft, keep_nul=self._keep_nul, limit=dump_limit(self._core))
        return self._text

    def _settle(self) -> None:
        """Have stored what has come in before something failed, so that it need not come again."""
        with suppress(ExtError):
            self._take_stored(self._puts.rest())

    def _is_done(self) -> bool:
        return not (
            self._walk.left
            or self._files.waits
            or self._puts
            or (self._delta is not None and self._delta.has_parts)
            or self._workers.are_busy
        )

    def _turn(self) -> None:
        """Do everything that can be done without waiting, then wait for something to happen."""
        for fetch in self._transport.step():
            assert isinstance(fetch, MetadataFetch)
            self._walk.take(fetch)
        self._files.take_confirmed()
        self._take_stored(self._puts.taken())
        if not self._walk.left:
            self._files.confirming.send()
        deal(self._workers, self._files.to_fetch, self._puts, self._delta)
        self._puts.send()
        # Sending may have read answers, and nothing else would wake us.
        if not (self._is_done() or self._puts.answered or self._files.confirming.answered):
            self._wait()

    def _wait(self) -> None:
        """Wait for a worker, the core or the transport, and take what workers have to say."""
        workers = list(self._workers)
        watched = [self._core.fileno(), *(worker.fileno() for worker in workers)]
        ready = wait(self._transport, watched, 0.0 if self._use_time() else None)
        for worker in workers:
            if worker.fileno() not in ready:  # nor is that of one which was ended with the delta meanwhile
                continue
            if self._delta is not None and worker.is_on_part:
                self._take_from_part(self._delta, worker)
            else:
                self._take_files(worker)
        if self._core.fileno() in ready:
            self._core.pump(0)

    def _use_time(self) -> bool:
        """Do some of the rest while something is awaited; tell whether there may be more to do."""
        if self._walk.awaits_delta:
            return self._files.look_ahead()
        if self._walk.left or self._files.missing > _MANY:
            return False
        return self._begun_text().prepare()

    # What comes from workers and from the core

    def _take_files(self, worker: Worker) -> None:
        """Take what was fetched; raise the error of the first file that failed."""
        for file_id, data, size, staged in worker.rows():
            self._files.count_fetched(file_id, data)
            self._take_file(file_id, data, size, staged)
            self._files_progress.advance(size, total=self._files.to_fetch.bytes)
        if worker.failure is not None:
            raise worker.failure

    def _take_from_part(self, delta: Applying, worker: Worker) -> None:
        """Take what has come of a part."""
        for row in worker.rows():
            object_id, data, size, staged = row
            delta.count(row)
            if size < 0:
                delta.add(object_id, Entry(data, None))
                self._walk.take_brought(object_id, data)
            else:
                self._take_file(object_id, data, size, staged)
        if worker.failure is not None:
            if not delta.is_useless_after(worker.failure):
                raise worker.failure
            self._forsake(delta, worker.failure)

    def _forsake(self, delta: Applying, error: ExtError) -> None:
        """Fetch one by one what the rest of a delta was to bring."""
        delta.forsake(error, self._workers.end_parts())
        self._take_stored(self._puts.rest())
        self._walk.forsake_delta()
        self._files.forsake_delta()

    def _take_file(self, file_id: bytes, data: bytes, size: int, place: str | tuple[str, int] | None) -> None:
        """Take a file that is all there in memory, or give the core one that is staged, or in a pack."""
        if place is None:
            self._files.take(file_id, Entry(data, None))
            return
        name, offset = (place, None) if isinstance(place, str) else place
        self._puts.add((file_id, data), name, size, offset)

    def _take_stored(self, answers: Iterator[tuple[Any, Stored]]) -> None:
        for (file_id, data), stored in answers:
            self._files.take(file_id, Entry(data, stored["id"]))
