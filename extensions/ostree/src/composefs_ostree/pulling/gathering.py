"""The files of one commit: which are wanted, which are here, and what the others wait for.

One that is held waits for the core's word that its content is still there, one that a static delta will bring for the
delta's part, and any other for a worker to fetch it.  Metadata is what :mod:`composefs_ostree.pulling.walk` is about.
"""

from __future__ import annotations

from collections.abc import Iterable

from composefs_ext import Core
from composefs_ostree.fetching.fetch_queue import FetchQueue
from composefs_ostree.fetching.metadata_fetch import Budget
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.objects import Commit
from composefs_ostree.formats.sizes import FileSizes
from composefs_ostree.pulling.confirming import Confirming
from composefs_ostree.pulling.supply import Supply

__all__ = ["Gathering"]


class Gathering:
    """The files of one commit: those that are here, and those that wait for something.

    ``here`` are those that have come, by id, of which ``fetched`` counts what the source has sent.  The others are in
    ``to_fetch``, for workers, or in ``confirming``, for the core, or are awaited from the delta.
    """

    def __init__(self, core: Core, commit: Commit, supply: Supply, budget: Budget) -> None:
        self._held = supply.held
        self._delta = supply.delta
        self._ahead = supply.ahead
        self._budget = budget
        self._note = supply.note
        self._wanted: set[bytes] = set()
        self._awaited: set[bytes] = set()
        self.here: dict[bytes, Entry] = {}
        self.fetched = 0
        self.confirming = Confirming(core, supply.sizes)
        told = {} if supply.delta is None else supply.delta.sizes
        # In the function self would be kept to the call's end.
        self.to_fetch = FetchQueue(lambda: FileSizes(commit, told), supply.workers.most)
        for file_id in () if self._delta is None else self._delta.fallbacks:
            self.to_fetch.add(file_id)

    @property
    def waits(self) -> bool:
        """Whether there are files that wait for something but a worker that was given them."""
        return bool(self.to_fetch or self.confirming or self._awaited)

    @property
    def missing(self) -> int:
        """How many are wanted and not here, as far as is known."""
        return len(self._wanted) - len(self.here)

    def of_commit(self) -> dict[bytes, Entry]:
        """Return the files that the commit has, once all are here; some that were met ahead it may not have."""
        return self.here if self._ahead is None else {file_id: self.here[file_id] for file_id in self._wanted}

    def want(self, ids: Iterable[bytes]) -> None:
        """Ask for the files of a directory, each once; what is held only waits for the core to confirm it."""
        wanted: Iterable[bytes] = dict.fromkeys(ids)
        if not self._wanted.isdisjoint(wanted):
            wanted = [file_id for file_id in wanted if file_id not in self._wanted]
        self._wanted.update(wanted)
        if self._ahead is not None:  # the core has been asked for what was met ahead, or will be
            met = self._ahead.files
            self._budget.spend(sum(len(met[file_id].data) for file_id in wanted if file_id in met))
            wanted = [file_id for file_id in wanted if file_id not in met]
        # A directory at a time, with locals: an update takes this way for every file that did not change.
        here, to_confirm, delta = self.here, self.confirming.waiting, self._delta
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
                    here[file_id] = entry
                else:
                    to_confirm[file_id] = entry
            self._budget.spend(size)
            wanted = absent
        for file_id in wanted:
            self._await(file_id)
        self.confirming.send_if_many()

    def look_ahead(self) -> bool:
        """Read on in the commit that the delta starts from; tell whether something was read."""
        if self._ahead is None or (found := self._ahead.step()) is None:
            return False
        for file_id, entry in found.items():
            if file_id not in self._wanted:
                (self.here if entry.content is None else self.confirming.waiting)[file_id] = entry
        self.confirming.send_if_many()
        return True

    def _await(self, file_id: bytes) -> None:
        """Have a file come, if it has not: of the delta, or else by itself."""
        if self._delta is None or not self._delta.awaits_file(file_id):
            self.to_fetch.add(file_id)
        elif self._delta.get(file_id) is None:
            self._awaited.add(file_id)

    def take_confirmed(self) -> None:
        """Take what the core has said of files that are held; what is gone has to come like any other."""
        for files, gone in self.confirming.taken():
            for file_id in gone:
                if self._ahead is not None:
                    self._ahead.files.pop(file_id, None)
                if file_id in self._wanted:
                    if self._delta is not None:
                        self._delta.miss(file_id)
                    self._await(file_id)
            self.here.update(files)

    def count_fetched(self, file_id: bytes, data: bytes) -> None:
        """Note that a file has been fetched, of which ``data`` is kept in memory."""
        self.fetched += 1
        self.to_fetch.arrived(file_id)
        self._budget.spend(len(data))

    def take(self, file_id: bytes, entry: Entry) -> None:
        """Take a file whose content is in the repository, or in the entry itself."""
        if self._delta is not None:
            self._delta.add(file_id, entry)  # perhaps nothing has asked for it yet
            self._awaited.discard(file_id)
        if file_id in self._wanted:
            self.here[file_id] = entry
        self._note(file_id, entry)

    def forsake_delta(self) -> None:
        """Have fetched what is not going to come of the delta any more."""
        assert self._delta is not None
        for file_id in [file_id for file_id in self._awaited if not self._delta.awaits_file(file_id)]:
            self._awaited.remove(file_id)
            self.to_fetch.add(file_id)
