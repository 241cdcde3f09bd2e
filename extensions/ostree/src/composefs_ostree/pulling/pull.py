"""Pulling one commit: the coordinator.

It walks the tree (:mod:`composefs_ostree.pulling.walk`), deals the files that dirtrees name to worker processes, and
gives what they stage to the core, all at the same time in one loop around one ``select``.  The core is busy from the
first file on.  What is held already (a base commit, or the cache of an interrupted pull) is not fetched, once the core
has confirmed that it is still there.

What is on its way is bounded (:mod:`composefs_ostree.pulling.dealing`); what is kept in memory is metadata, 2 KB an
object.
"""

from __future__ import annotations

from contextlib import suppress

from composefs_ext.drafts import Draft
from composefs_ext.errors import CancelledError, ExtError
from composefs_ext.puts import Puts
from composefs_ostree.dumptext import MAX_DUMP, DumpText
from composefs_ostree.fetching.fetch_queue import FetchQueue
from composefs_ostree.fetching.metadata_fetch import Budget, MetadataFetch
from composefs_ostree.fetching.transport import wait
from composefs_ostree.fetching.worker import Workers
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.sizes import FileSizes
from composefs_ostree.pulling.confirming import Confirming
from composefs_ostree.pulling.dealing import deal
from composefs_ostree.pulling.walk import Walk
from composefs_ostree.tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ext.packs import Packs
    from composefs_ext.rows import Stored
    from composefs_ostree.deltas.applying import Applying
    from composefs_ostree.fetching.content import Row
    from composefs_ostree.fetching.fetch_queue import Sizes
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.fetching.worker import Worker
    from composefs_ostree.formats.commit_stream import Holder
    from composefs_ostree.formats.objects import Commit
    from composefs_ostree.part import Part
    from composefs_ostree.pulling.ahead import Ahead
    from composefs_ostree.pulling.confirming import BaseSizes

__all__ = ["MAX_COMMIT_METADATA", "Pull"]

MANY = 1000
"""Files that are still to come, above which the text of the tree is not begun: too many directories would lack some."""

MAX_COMMIT_METADATA = 256 << 20
"""Bytes of metadata that one commit may have: they are kept in memory, and become one stream."""


class Pull:
    """One commit on its way in; ``run`` fetches everything.

    Then ``entries`` has every object of the commit by id, as its stream will.  ``fetched_metadata`` and
    ``fetched_files`` count what came from the source.
    """

    def __init__(
        self,
        core: Core,
        transport: Transport,
        make_files: Callable[[Packs], Files],
        sizes: BaseSizes,
        *,
        held: Sequence[Holder] = (),
        delta: Applying | None = None,
        ahead: Ahead | None = None,
        store: Callable[[bytes, Entry], None] | None = None,
        max_workers: int | None = None,
        keep_nul: bool = False,
    ) -> None:
        """``make_files`` is called in each worker process; there are no more of these than processors.

        ``sizes`` are those of objects of bases.  ``held`` are asked for an object before it is fetched, ``store`` is
        called with every file that has come in.  Of a ``delta``, for which ``make_files`` makes what can carry out its
        parts, all is brought in first; it starts from the commit of ``ahead``.  ``keep_nul`` is as in
        :class:`~composefs_ostree.dumptext.DumpText`.
        """
        self._core = core
        self._transport = transport
        self._delta = delta
        self._held = held if delta is None else [delta, *held]
        self._ahead = ahead
        self._keep_nul = keep_nul
        self._draft = Draft(core)
        self._text: DumpText | None = None
        self._store = store
        self.entries: dict[bytes, Entry] = {}
        self.fetched_files = 0
        self._files: dict[bytes, Entry] = {}
        self._awaited_files: set[bytes] = set()
        self._commit: Commit | None = None
        self._budget = Budget(min(core.limits.get("stream_bytes", MAX_COMMIT_METADATA), MAX_COMMIT_METADATA))
        self._requested: set[bytes] = set()
        self._workers = Workers(make_files, core.staging.path, max_workers, core.features)
        self._confirming = Confirming(core, sizes)
        self._puts = Puts(core)
        self._to_fetch = FetchQueue(dict, self._workers.most)
        self._metadata_progress = core.progress("metadata")
        self._files_progress = core.progress("files", unit="bytes")
        self._walk = Walk(
            transport,
            self._held,
            self._budget,
            self._want_files,
            self._metadata_progress,
            delta=delta,
            ahead=ahead,
        )

    @property
    def fetched_metadata(self) -> int:
        """How many metadata objects came from the source."""
        return self._walk.fetched

    def run(self, commit_id: bytes, data: bytes, commit: Commit, part: Part | None = None) -> Pending[Stored]:
        """Fetch all that a commit needs, or a part of it, hand its files to the core, and have that make the image."""
        self._commit = None if part is not None else commit
        self._to_fetch = FetchQueue(lambda: self._sizes(commit), self._workers.most)
        self.entries[commit_id] = Entry(data, None)
        if part is not None:
            self.entries.update(part.entries)
        for entry in self.entries.values():
            self._budget.spend(len(entry.data))
        for file_id in () if self._delta is None else self._delta.fallbacks:
            self._to_fetch.add(file_id)
        try:
            if part is None:
                self._walk.want([(ObjectType.DIRTREE, commit.root_tree), (ObjectType.DIRMETA, commit.root_meta)])
            else:
                self._walk.want(part.roots)
                self._want_files(part.files)
            while not self._is_done():
                self._turn()
            self._workers.end()
            # Before all else: the core has nothing to do until it has the rest of the text.
            self._write_text(commit, part)
            image = self._core.image_put(*self._draft.finish())
        except ExtError as error:
            if not isinstance(error, CancelledError):
                self._settle()
            raise
        finally:
            self._workers.end()
        self._metadata_progress.finish()
        self._files_progress.finish()
        if self._delta is not None:
            self._delta.finish()
        files = self._files
        if self._ahead is not None:  # which may have met some that the commit does not have
            files = {file_id: files[file_id] for file_id in self._requested}
        self.entries |= self._walk.entries
        self.entries |= files
        return image

    def _write_text(self, commit: Commit, part: Part | None) -> None:
        if self._text is None:
            tree = self._tree(commit)
            self._text = self._begin_text(tree if part is None else tree.grafted(part))
        self._text.finish()

    def _tree(self, commit: Commit) -> Tree:
        return Tree(commit, self._walk.trees, self._walk.metas, self._files)

    def _begin_text(self, tree: Tree) -> DumpText:
        limit = self._core.limits.get("dump_bytes", MAX_DUMP)
        return DumpText(tree, self._draft, keep_nul=self._keep_nul, limit=limit)

    def _sizes(self, commit: Commit) -> Sizes:
        return FileSizes(commit) if self._delta is None else self._delta.sizes(FileSizes(commit))

    def _settle(self) -> None:
        """Have stored what has come in before something failed, so that it need not come again."""
        with suppress(ExtError):
            self._take_stored(self._puts.rest())

    def _is_done(self) -> bool:
        return not (
            self._walk.left
            or self._to_fetch
            or self._confirming
            or self._puts
            or self._awaited_files
            or (self._delta is not None and self._delta.has_parts)
            or self._workers.are_busy
        )

    def _turn(self) -> None:
        """Do everything that can be done without waiting, then wait for something to happen."""
        for fetch in self._transport.step():
            assert isinstance(fetch, MetadataFetch)
            self._walk.take(fetch)
        self._take_answers()
        if not self._walk.left:
            self._confirming.send()
        deal(self._workers, self._to_fetch, self._puts, self._delta)
        self._puts.send()
        if self._is_done() or self._has_answers():  # sending may have read answers, and nothing else would wake us
            return
        by_fd = {worker.fileno(): worker for worker in self._workers}
        ready = wait(self._transport, [self._core.fileno(), *by_fd], 0.0 if self._use_time() else None)
        for fd in ready:
            worker = by_fd.get(fd)
            if worker is None or worker.has_ended:
                continue
            if self._delta is not None and worker.is_on_part:
                self._take_from_part(self._delta, worker)
                continue
            self._take_rows(worker.rows())
            if worker.failure is not None:
                raise worker.failure
        if self._core.fileno() in ready:
            self._core.pump(0)

    def _use_time(self) -> bool:
        """Do some of the rest while something is awaited; tell whether there may be more to do."""
        if self._walk.awaits_delta:
            return self._look_ahead()
        missing = len(self._requested) - len(self._files)
        if self._commit is None or self._walk.left or missing > MANY:
            return False
        if self._text is None:
            self._text = self._begin_text(self._tree(self._commit))
        return self._text.prepare()

    def _look_ahead(self) -> bool:
        """Read on in the old commit; tell whether something was read."""
        if self._ahead is None or (found := self._ahead.step()) is None:
            return False
        for file_id, entry in found.items():
            if file_id not in self._requested:
                (self._files if entry.content is None else self._confirming.waiting)[file_id] = entry
        self._confirming.send_if_many()
        return True

    # Files

    def _want_files(self, ids: Iterable[bytes]) -> None:
        """Ask for the files of a directory, each once; what is held only waits for the core to confirm it."""
        wanted: Iterable[bytes] = dict.fromkeys(ids)
        if not self._requested.isdisjoint(wanted):
            wanted = [file_id for file_id in wanted if file_id not in self._requested]
        self._requested.update(wanted)
        if self._ahead is not None:  # the core has been asked for what was met ahead, or will be
            met = self._ahead.files
            self._budget.spend(sum(len(met[file_id].data) for file_id in wanted if file_id in met))
            wanted = [file_id for file_id in wanted if file_id not in met]
        # A directory at a time, with locals: an update takes this way for every file that did not change.
        files, to_confirm, delta = self._files, self._confirming.waiting, self._delta
        for source in self._held:
            get = source.get
            absent = []
            size = 0
            for file_id in wanted:
                entry = get(file_id)
                if entry is None:
                    absent.append(file_id)
                    continue
                data, content = entry
                size += len(data)
                if content is None or source is delta:  # what is new needs no confirmation
                    files[file_id] = entry
                else:
                    to_confirm[file_id] = entry
            self._budget.spend(size)
            wanted = absent
        for file_id in wanted:
            self._await(file_id)
        self._confirming.send_if_many()

    def _await(self, file_id: bytes) -> None:
        """Have a file come, if it has not: of the delta, or else by itself."""
        if self._delta is None or not self._delta.awaits_file(file_id):
            self._to_fetch.add(file_id)
        elif self._delta.get(file_id) is None:
            self._awaited_files.add(file_id)

    def _take_from_part(self, delta: Applying, worker: Worker) -> None:
        """Take what has come of a part."""
        for row in worker.rows():
            object_id, data, size, staged = row
            delta.count(row)
            if size < 0:
                delta.add(object_id, Entry(data, None))
                self._walk.take_brought(object_id, data)
            elif staged is None:
                self._stored(object_id, Entry(data, None))
            else:
                self._put(object_id, data, size, staged)
        if worker.failure is not None:
            if not delta.is_useless_after(worker.failure):
                raise worker.failure
            self._forsake(delta, worker.failure)

    def _forsake(self, delta: Applying, error: ExtError) -> None:
        """Fetch one by one what the rest of a delta was to bring."""
        delta.forsake(error, self._workers.end_parts())
        self._take_stored(self._puts.rest())
        self._walk.forsake_delta()
        for file_id in [file_id for file_id in self._awaited_files if not delta.awaits_file(file_id)]:
            self._awaited_files.remove(file_id)
            self._to_fetch.add(file_id)

    def _take_rows(self, rows: list[Row]) -> None:
        for row in rows:
            file_id, data, size, staged = row
            self.fetched_files += 1
            self._to_fetch.arrived(file_id)
            self._budget.spend(len(data))
            if staged is None:
                self._stored(file_id, Entry(data, None))
            else:
                self._put(file_id, data, size, staged)
            self._files_progress.advance(size, total=self._to_fetch.bytes)

    def _put(self, file_id: bytes, data: bytes, size: int, place: str | tuple[str, int]) -> None:
        """Give the core a file that is staged, or in a pack."""
        name, offset = (place, None) if isinstance(place, str) else place
        self._puts.add((file_id, data), name, size, offset)

    def _has_answers(self) -> bool:
        return self._puts.answered or self._confirming.answered

    def _take_answers(self) -> None:
        for files, gone in self._confirming.taken():
            for file_id in gone:
                if self._ahead is not None:
                    self._ahead.files.pop(file_id, None)
                if file_id in self._requested:
                    self._await(file_id)
            self._files.update(files)
        self._take_stored(self._puts.taken())

    def _take_stored(self, answers: Iterator[tuple[Any, Stored]]) -> None:
        for (file_id, data), stored in answers:
            self._stored(file_id, Entry(data, stored["id"]))

    def _stored(self, file_id: bytes, entry: Entry) -> None:
        if self._delta is not None:
            self._delta.add(file_id, entry)  # perhaps nothing has asked for it yet
            self._awaited_files.discard(file_id)
        if file_id in self._requested:
            self._files[file_id] = entry
        if self._store is not None:
            self._store(file_id, entry)
