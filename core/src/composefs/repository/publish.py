"""Publishing: making stored objects visible under names, the only way in which a repository changes for its readers.

The order is what neither a power cut nor a kill can break: everything stored so far is made durable by one syncfs(2),
then ``images/ID`` is written and synced, then ``streams/NAME``, then the refs to them, then refs are removed.
Whatever is found afterwards names only what is there, and a stream that has a name has named images.  Expectations are
checked and names written under a lock on ``streams/``; a check that fails leaves everything as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from composefs.linux.closing import Descriptor
from composefs.linux.files import open_directory, refusal_to_write, sync_directory
from composefs.linux.locks import lock
from composefs.repository.images import Images
from composefs.repository.links import make_directories, make_room, open_refs, point
from composefs.repository.names import ref_link
from composefs.repository.objects import Objects
from composefs.repository.plan import Plan, Planner, check_names
from composefs.repository.publication import Publication, Published
from composefs.repository.refs import Refs
from composefs.repository.store import Store
from composefs.repository.streams import Streams

__all__ = ["Publisher"]

# Others hold the lock for a few symlinks and syncs, so waiting is no news to a user until something hangs.
_LOCK_SECONDS = 60.0


class Publisher:
    """Publishes in one repository."""

    def __init__(self, store: Store, objects: Objects, streams: Streams, images: Images, refs: Refs) -> None:
        self._store = store
        self._objects = objects
        self._planner = Planner(store, objects, streams, images, refs)

    def publish(self, publication: Publication) -> Published:
        """Publish; see the module.  What is there already is not written again, only waited for.

        Raises MissingObjectError for an id that is not stored, NotFoundError for a ref's target or a ref to remove that
        does not exist, ConflictError for a broken expectation, ExistsError, FormatError for names, and ReadOnlyError.
        """
        self._store.require_writable("publishing")
        check_names(publication)
        ids = [stream.id for stream in publication.streams] + [image.id for image in publication.images]
        self._objects.require(dict.fromkeys(ids), "publishing")
        with self._store.doing("publishing"):
            plan = self._planner.plan(publication)
            if plan or self._objects.unsynced:
                self._objects.barrier()
            if plan or not self._wait_for_names(plan):
                with self._lock():
                    plan = self._planner.plan(publication)  # the first was a look without the lock
                    self._carry_out(plan)
        return plan.published

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self._store.directory("streams")
        with Descriptor(open_directory("streams", self._store.root)) as fd:
            what = f"publishing in {self._store.path}: its list of streams"
            lock(fd, what, exclusive=True, wait=_LOCK_SECONDS)
            yield

    def _wait_for_names(self, plan: Plan) -> bool:
        """Wait for names that are all there, as :meth:`_carry_out` does; False if a directory of refs has gone since.

        Nothing is made here: without the lock, somebody else may be making it, or removing it.
        """
        for directory in sorted(plan.names):
            sync_directory(self._store.directory(directory))
        for directory, parents in plan.refs:
            fd = open_refs(parents, self._store.directory(directory), f"{directory}/refs")
            if fd is None:
                return False
            with Descriptor(fd):
                sync_directory(fd)
        return True

    def _carry_out(self, plan: Plan) -> None:
        """Write what the plan lacks, and wait for all of it: who wrote the rest may have been killed before waiting."""
        # All directories first: what is in the way of one, or who may write there, is found before anything is visible.
        for (directory, parents), refs in plan.refs.items():
            with self._refs_below(directory, parents, to_write=bool(refs)) as fd:
                for name, _ in refs:
                    make_room(name, fd, "/".join([directory, "refs", *parents, name]))
        for directory, parts in plan.removals:
            with self._refs_below(directory, parts[:-1], to_write=True):
                pass
        for directory in sorted(plan.names):
            for name, target in plan.names[directory]:
                point(name, self._store.directory(directory), target)
            sync_directory(self._store.directory(directory))
        for (directory, parents), refs in plan.refs.items():
            with self._refs_below(directory, parents, to_write=bool(refs)) as fd:
                for name, target in refs:
                    point(name, fd, ref_link(len(parents), target))
                sync_directory(fd)
        for directory, parts in plan.removals:
            self._remove_ref(directory, parts)

    def _remove_ref(self, directory: str, parts: list[str]) -> None:
        """Remove a ref's symlink and the directories that are empty then, so that a ref can have their name."""
        with self._refs_below(directory, parts[:-1], to_write=True) as fd:
            os.unlink(parts[-1], dir_fd=fd)
            sync_directory(fd)
        for length in range(len(parts) - 1, 0, -1):
            try:
                os.rmdir("/".join(["refs", *parts[:length]]), dir_fd=self._store.directory(directory))
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EACCES, errno.EPERM):  # with others' refs, or others'
                    return
                raise

    @contextlib.contextmanager
    def _refs_below(self, directory: str, parents: Sequence[str], *, to_write: bool) -> Iterator[int]:
        """Open a directory of refs, made where it is missing.

        Raises the system's reason, and names it, if it is ``to_write`` and we may not.
        """
        where = "/".join([directory, "refs", *parents])
        with self._store.doing(f"publishing {where}"):
            fd = make_directories(["refs", *parents], self._store.directory(directory), where)
        with Descriptor(fd):
            if to_write and (reason := refusal_to_write(".", fd)) is not None:
                raise self._store.failed(reason, f"publishing {where}")
            yield fd
