"""The walk of a commit's tree: its dirtrees and dirmetas, which name the files that it needs.

What is held is taken at once, with all that is below it.  The rest is fetched by the coordinator itself, or is awaited
from the static delta that will bring it.  Every object is checked against its id before it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import sha256

from composefs_ext.errors import CorruptError, ExtError, FormatError
from composefs_ext.progress import Progress
from composefs_ostree.fetching.blame import blamed
from composefs_ostree.fetching.metadata_fetch import Budget, MetadataFetch
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.objects import Dirmeta, Dirtree, parse_dirmeta, parse_dirtree
from composefs_ostree.pulling.supply import Supply

__all__ = ["Walk"]

_Wanted = tuple[ObjectType, bytes]
"""By type and id: a malicious tree may name one object as two types."""


class Walk:
    """What has come of a tree, by id: ``trees`` and ``metas``, and ``entries`` with the bytes of both.

    ``left`` counts objects that are still to come, ``fetched`` those that the source has sent.
    """

    def __init__(
        self, supply: Supply, budget: Budget, want_files: Callable[[Iterable[bytes]], None], progress: Progress
    ) -> None:
        """``want_files`` is called with the files of each directory."""
        self._supply = supply
        self._transport = supply.transport
        self._delta = supply.delta
        self._read = {} if supply.ahead is None else supply.ahead.trees
        self._budget = budget
        self._want_files = want_files
        self._progress = progress
        self.entries: dict[bytes, Entry] = {}
        self.trees: dict[bytes, Dirtree] = {}
        self.metas: dict[bytes, Dirmeta] = {}
        self.left = 0
        self.fetched = 0
        self._wanted: set[_Wanted] = set()
        self._awaited: dict[bytes, list[ObjectType]] = {}

    @property
    def awaits_delta(self) -> bool:
        """Whether it cannot go on without what the delta is still to bring."""
        return bool(self._awaited)

    def want(self, objects: Iterable[_Wanted]) -> None:
        """Ask for objects, each once, and for all that is below those which are held."""
        wanted = list(objects)
        while wanted:
            kind, object_id = each = wanted.pop()
            if each in self._wanted:
                continue
            self._wanted.add(each)
            data = self._find(kind, object_id)
            if data is not None:
                wanted += self._take_here(kind, object_id, data)
                continue
            self.left += 1
            if self._delta is not None and self._delta.awaits_metadata(object_id):
                self._awaited.setdefault(object_id, []).append(kind)
            else:
                self._fetch(kind, object_id)

    def take(self, fetch: MetadataFetch) -> None:
        """Take an object that has been fetched, and ask for what it names."""
        self.left -= 1
        try:
            if fetch.error is not None:
                raise fetch.error
            data = fetch.data
            if sha256(data).digest() != fetch.object_id:
                raise CorruptError("its checksum does not match its name")
            below = self._accept(fetch.kind, fetch.object_id, data)
        except ExtError as error:
            raise blamed(self._transport.where(fetch.path), error) from None
        self._supply.note(fetch.object_id, Entry(data, None))
        self.fetched += 1
        self._progress.advance()
        self.want(below)

    def take_brought(self, object_id: bytes, data: bytes) -> None:
        """Take an object that the delta has brought and checked."""
        self._supply.note(object_id, Entry(data, None))
        for kind in self._awaited.pop(object_id, ()):
            self.left -= 1
            self.want(self._take_here(kind, object_id, data))

    def forsake_delta(self) -> None:
        """Fetch what the delta was to bring."""
        awaited, self._awaited = self._awaited, {}
        for object_id, kinds in awaited.items():
            for kind in kinds:
                self._fetch(kind, object_id)

    def _fetch(self, kind: ObjectType, object_id: bytes) -> None:
        self._transport.start(MetadataFetch(kind, object_id, self._budget))

    def _find(self, kind: ObjectType, object_id: bytes) -> bytes | None:
        if kind is ObjectType.DIRTREE and object_id in self._read:
            return self._read[object_id][0]
        return self._supply.held_metadata(object_id)

    def _take_here(self, kind: ObjectType, object_id: bytes, data: bytes) -> list[_Wanted]:
        """Take an object that is held, or that the delta has brought; return the metadata that it names."""
        self._budget.spend(len(data))
        try:
            return self._accept(kind, object_id, data)
        except FormatError as error:
            raise FormatError(
                f"{kind.word} {object_id.hex()}: {error.message}",
                hint=f"tell who made the commit, which names it as a {kind.word}",
            ) from None

    def _accept(self, kind: ObjectType, object_id: bytes, data: bytes) -> list[_Wanted]:
        """Take in an object that has its id; return the metadata that it names."""
        self.entries[object_id] = Entry(data, None)
        if kind is ObjectType.DIRMETA:
            self.metas[object_id] = parse_dirmeta(data)
            return []
        read = self._read.get(object_id)
        listing = self.trees[object_id] = parse_dirtree(data) if read is None else read[1]
        self._want_files([file_id for _, file_id in listing.files])
        below: list[_Wanted] = []
        for _, tree_id, meta_id in listing.directories:
            below.append((ObjectType.DIRTREE, tree_id))
            below.append((ObjectType.DIRMETA, meta_id))
        return below
