"""Commits that the composefs repository does not hold (or not as wanted): from their objects to their streams.

Everything that is only needed then is imported here, because most pulls find nothing new.
"""

from __future__ import annotations

import gc

from composefs_ext.errors import CancelledError, ExtError, NoSpaceError, NotFoundError, ReadOnlyError
from composefs_ostree.fetching.blame import Blaming, blamed
from composefs_ostree.fetching.stage import SmallContents
from composefs_ostree.fetching.worker import Workers
from composefs_ostree.formats.commit_stream import IMAGE_REF, Entry, inline_limit, partial_name, stream_name
from composefs_ostree.formats.names import ObjectType, object_path
from composefs_ostree.formats.objects import parse_dirtree
from composefs_ostree.held.excerpt import existing, find_excerpt
from composefs_ostree.held.storing import lay_out, put_commit, put_laid_out
from composefs_ostree.held.streams import Asked
from composefs_ostree.pulling.cache import Cache
from composefs_ostree.pulling.confirming import BaseSizes
from composefs_ostree.pulling.known import Held
from composefs_ostree.pulling.pull import Pull
from composefs_ostree.pulling.supply import Supply
from composefs_ostree.sources.finding import fetch_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, MutableMapping, Sequence

    from composefs_ext import Core
    from composefs_ext.packs import Packs
    from composefs_ostree.deltas.old_files import OldFiles
    from composefs_ostree.deltas.superblock import Delta
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.formats.commit_stream import CommitStream, Holder
    from composefs_ostree.pulling.known import CommitObject
    from composefs_ostree.sources.source import ObjectSource


__all__ = ["Receiver"]

_NEAR = 50
_NEAR_OBJECTS = 200_000
"""Of the commits that a call has brought, how many are at hand for the next one, and with how many objects in all.

A history may have thousands, each of which takes a descriptor and, for each of its objects, 300 bytes.
"""


class Receiver:
    """Receives the commits of one call, each with what the last ones before it have brought."""

    def __init__(
        self,
        core: Core,
        source: ObjectSource,
        transport: Transport,
        asked: MutableMapping[str, Asked],
        *,
        keep_nul: bool,
        uses_cache: bool,
    ) -> None:
        """``asked`` has the streams of bases that the core was asked for already, by name; what is opened is removed.

        ``keep_nul`` is as in :class:`~composefs_ostree.held.dumptext.DumpText`.
        """
        self._core = core
        self._source = source
        self._transport = transport
        self._asked = asked
        self._keep_nul = keep_nul
        self._limit = inline_limit(core.repo.algorithm)
        self._cache = Cache.open(core.cache) if uses_cache else None
        self._earlier: list[CommitStream] = []
        self._sizes = BaseSizes()
        self._last: tuple[str, str] | None = None
        # From one commit to the next: to fork them takes as long as fetching a hundred files.
        self._workers = Workers(core, self._files, source.max_workers)
        gc.disable()  # a pull makes no cycles, but enough objects for a tenth of its time to go into looking for some

    def close(self, *, are_named: bool) -> None:
        """End the workers, free the cache, and forget what an interrupted pull would need if all have their names."""
        self._workers.end()
        if self._cache is not None:
            if are_named:
                self._cache.clear()
            self._cache.close()

    def receive(
        self,
        wanted: CommitObject,
        subpaths: Sequence[str] | None,
        bases: Iterable[str],
        damaged: Collection[str],
        named_refs: Sequence[tuple[str, str]],
        *,
        may_lack_paths: bool,
    ) -> Held:
        """Fetch what a commit needs, have its image and its stream stored; they are still to be named.

        ``subpaths`` is what is wanted of it (None: all), ``bases`` are names of streams that may hold some of that,
        ``damaged`` ids of objects of the repository that are not to be used, and ``named_refs`` what its stream shall
        name besides the image.  A commit that ``may_lack_paths`` is fine without some of the subpaths: it is older than
        the one of which they were asked for.
        """
        commit_id, _, commit, _ = wanted
        if subpaths is not None and not subpaths:
            return self._keep_alone(wanted, named_refs)
        supply = self._supply(wanted, list(bases), damaged)
        way = _Way(self._core, supply)
        if subpaths is not None and may_lack_paths:
            subpaths = existing(commit, subpaths, way.load)
            if not subpaths:
                return self._keep_alone(wanted, named_refs, way.fetched)
        excerpt = find_excerpt(commit, subpaths, way.load)
        pull = Pull(self._core, wanted, excerpt, supply, keep_nul=self._keep_nul)
        image_put = pull.run()
        with self._core.progress("image"):
            laid_out = lay_out(self._core, commit_id, pull.entries, subpaths)
            metadata, files, parts = pull.brought
            metadata += way.fetched
            del pull, supply, way, excerpt  # now, while the core makes the image: this takes some milliseconds
            stream_id = put_laid_out(self._core, laid_out, image_put, named_refs=named_refs)
            image = image_put.result()["id"]
        name = stream_name(commit_id) if subpaths is None else partial_name(commit_id)
        self._last = (name, stream_id)
        named = [(IMAGE_REF, image), *named_refs]
        return Held(name, stream_id, named, subpaths, 1 + metadata, files, parts)

    def _keep_alone(self, wanted: CommitObject, named_refs: Sequence[tuple[str, str]], fetched: int = 0) -> Held:
        """Have the commit object stored, with nothing of its tree."""
        commit_id = wanted.commit_id
        entries = {commit_id: Entry(wanted.data, None)}
        stream_id = put_commit(self._core, commit_id, entries, named_refs=named_refs, subpaths=())
        return Held(partial_name(commit_id), stream_id, named_refs, (), 1 + fetched)

    def _supply(self, wanted: CommitObject, bases: Sequence[str], damaged: Collection[str]) -> Supply:
        """Open what may hold some of a commit, and its delta if there is one."""
        self._open_last()
        delta = wanted.delta
        origin_id = None if delta is None else delta.origin
        can_do_without = self._source.has_objects or stream_name(wanted.commit_id) in bases
        needed = None if origin_id is None or can_do_without else stream_name(origin_id)
        commits = [*self._earlier, *self._open_bases(bases, needed)]
        held: list[Holder] = [*commits]
        if self._cache is not None:
            held.append(self._cache)
        if damaged:
            held = [_Sound(each, damaged) for each in held]
        supply = Supply(self._transport, self._workers, held, self._sizes)
        if self._cache is not None:
            supply = supply._replace(note=self._cache.add)
        origin = next((each for each in commits if each.commit_id == origin_id and each.subpaths is None), None)
        if delta is None or (origin is None and origin_id is not None):  # the source has each object by itself, too
            return supply
        if not self._source.has_objects and any(self._is_complete(each, wanted.commit_id) for each in commits):
            return supply  # as only the image is to be made
        from composefs_ostree.deltas.applying import Applying
        from composefs_ostree.deltas.old_files import OldFiles
        from composefs_ostree.pulling.ahead import Ahead

        old = OldFiles(origin, self._core.repo)
        applying = Applying(self._core, delta, held, None if self._source.has_objects else old)
        self._workers.end()
        self._workers = Workers(self._core, self._make_part_files(delta, old), self._source.max_workers)
        return supply._replace(
            workers=self._workers,
            held=[applying, *held],
            delta=applying,
            ahead=None if origin is None or damaged else Ahead(origin),
        )

    def _is_complete(self, held: CommitStream, commit_id: bytes) -> bool:
        """Tell whether a stream is that of a commit, and all content that it refers to is here."""
        if held.commit_id != commit_id or held.subpaths is not None:
            return False
        return all(self._core.object_has(held.references).result())

    def _files(self, packs: Packs) -> Files:
        return self._source.files(SmallContents(self._limit, packs))

    def _make_part_files(self, delta: Delta, old: OldFiles) -> Callable[[Packs], Files]:
        """Return what makes, in a worker, that which carries out the parts of a delta and fetches files beside them."""
        from composefs_ostree.deltas.parts import PartFiles

        def make(packs: Packs) -> PartFiles:
            small = SmallContents(self._limit, packs)
            transport = self._source.content_transport()
            return PartFiles(delta.parts, transport, old, small, self._source.files(small))

        return make

    def _open_last(self) -> None:
        """Have what came last at hand, when there is a commit after it: in a memory map, not as objects of Python."""
        if self._last is not None:
            name, stream_id = self._last
            self._earlier.insert(0, self._open(name, Asked(self._core, name, stream_id, sizes=True)))
            self._last = None
            while self._earlier[_NEAR:] or (sum(map(len, self._earlier)) > _NEAR_OBJECTS and self._earlier[1:]):
                self._earlier.pop()

    def _open_bases(self, names: Iterable[str], needed: str | None) -> list[CommitStream]:
        """Open those that can be read; the ``needed`` one has to be."""
        bases = []
        for name in dict.fromkeys(names):
            try:
                bases.append(self._open(name, self._asked.pop(name, None)))
            except (CancelledError, NoSpaceError, ReadOnlyError):
                raise  # the base is not at fault
            except ExtError as error:
                if name == needed:
                    raise
                if not isinstance(error, NotFoundError):  # never pulled, or removed since
                    self._core.log("warning", f"{name} is not used as a base: {error.message}")
        return bases

    def _open(self, name: str, asked: Asked | None) -> CommitStream:
        """Open a held commit, which may have been asked for; the sizes of its objects are those of a base."""
        asked = asked or Asked(self._core, name, sizes=not self._sizes.knows(name))
        commit, stream = asked.open()
        if asked.sizes is not None:
            self._sizes.expect(name, stream, asked.sizes)
        return commit


class _Sound:
    """What another holder has, without the files whose content is damaged in the repository."""

    def __init__(self, holder: Holder, damaged: Collection[str]) -> None:
        self._holder = holder
        self._damaged = damaged

    def get(self, object_id: bytes) -> Entry | None:
        """Return the object if it is here and sound."""
        entry = self._holder.get(object_id)
        return None if entry is None or entry.content in self._damaged else entry


class _Way:
    """Loads the directories on the way to an excerpt, one after the other."""

    def __init__(self, core: Core, supply: Supply) -> None:
        self._core = core
        self._supply = supply
        self._loaded: dict[bytes, bytes] = {}
        self.fetched = 0

    def load(self, object_id: bytes) -> bytes:
        """Return a dirtree's bytes."""
        data = self._loaded.get(object_id) or self._supply.held_metadata(object_id)
        if data is None:
            data = self._loaded[object_id] = self._fetch(object_id)
        return data

    def _fetch(self, object_id: bytes) -> bytes:
        data = fetch_object(self._core, self._supply.transport, ObjectType.DIRTREE, object_id)
        # Not before: now it is that of the mirror which had an answer.
        where = self._supply.transport.where(object_path(ObjectType.DIRTREE, object_id))
        if data is None:
            raise blamed(where, NotFoundError("not found"))
        with Blaming(where):
            parse_dirtree(data)  # as find_excerpt does, which cannot name it
        self.fetched += 1
        self._supply.note(object_id, Entry(data, None))
        return data
