"""What is known of a commit that is wanted: what the repository holds of it already, and what the source says of it.

Nothing is asked twice, and of the source nothing that the repository can tell: most pulls find nothing new.
"""

from __future__ import annotations

from composefs_ext.errors import UNREADABLE, NotFoundError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.commit_stream import IMAGE_REF, commit_of_stream, is_partial, partial_name, stream_name
from composefs_ostree.formats.names import MAX_METADATA
from composefs_ostree.held.streams import detached_metadata, open_commit
from composefs_ostree.sources.finding import fetch_commit, fetch_detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from composefs_ext import Core, Stream
    from composefs_ext.connection import Pending
    from composefs_ext.errors import ExtError
    from composefs_ostree.deltas.superblock import Delta
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.formats.objects import Commit
    from composefs_ostree.signatures.policy import Policy
    from composefs_ostree.sources.source import ObjectSource

__all__ = ["Brought", "CommitObject", "Held", "Inquiry", "Known", "Terms"]


class Terms(NamedTuple):
    """How commits are pulled, whichever they are."""

    policy: Policy
    subpaths: Sequence[str] | None = None
    """None: all of a commit; empty: the commit object alone."""
    depth: int = 0
    """How many parents to pull too; negative: all."""
    base: str | None = None
    """The stream of a commit that may have much of them."""
    collection: str | None = None
    """The collection that commits must be of, parents too; None: whatever they say."""
    keep_nul: bool | None = None
    """Whether images are to be those of composefs-rs 0.9.0 (composefs_ostree.held.dumptext); None: as they are here."""
    use_deltas: bool = False
    is_repair: bool = False


class Held(NamedTuple):
    """A commit in the repository: name and id of its stream, what that names, and the paths that are here (None: all).

    The stream of one that was just brought is still to be named.  The numbers are how much came from the source.
    """

    name: str
    stream: str
    named_refs: Sequence[tuple[str, str]]
    subpaths: Sequence[str] | None
    metadata: int = 0
    files: int = 0
    parts: int = 0

    @property
    def image(self) -> str | None:
        """The id of its image, None if it has none."""
        return dict(self.named_refs).get(IMAGE_REF)


class Brought(NamedTuple):
    """A commit that is stored now, and those of its parents that were wanted too, nearest first, by their ids.

    ``signatures`` are those that it was checked by, for JSON.
    """

    commit_id: bytes
    here: Held
    parents: dict[bytes, Held]
    signatures: list[dict[str, Any]]


class CommitObject(NamedTuple):
    """A commit object, checked and read: its id and bytes, and the static delta that it came in, if it came in one."""

    commit_id: bytes
    data: bytes
    commit: Commit
    delta: Delta | None = None


class Known:
    """A commit that is wanted: what :class:`Inquiry` has found out about it, and what has come of it."""

    def __init__(self, commit_id: bytes, size: int, current: str | None) -> None:
        """``size`` bounds the commit object; ``current`` is the stream that its ref names here now, or one like it."""
        self.commit_id = commit_id
        self.size = size
        self.current = current
        self.held: Held | None = None
        """What the repository had of it before the call, None if nothing that can be read as a stream."""
        self.unreadable: str | None = None
        """The name of the stream that the repository has of it and that cannot be read, by a repair as a commit."""
        self.detached: bytes | None = None
        """The detached metadata that the source has, None if it has none."""
        self.object: CommitObject | None = None
        """The commit object, once somebody has needed it."""
        self.signatures: list[dict[str, Any]] = []
        """Those that were checked, for JSON."""
        self.similar: str | None = None
        """The name of a stream that may have much of it although nothing says so."""

        # What becomes of it.
        self.here: Held | None = None
        """How it is stored now, for itself or as the parent of another commit."""
        self.parent: Held | None = None
        """The parent that its stream names, if that was brought too."""
        self.brought: Brought | None = None
        """What came of a request for the commit itself."""


class Inquiry:
    """Asks the repository and the source about commits."""

    def __init__(self, core: Core, source: ObjectSource, transport: Transport, terms: Terms) -> None:
        self._core = core
        self._source = source
        self._transport = transport
        self._terms = terms
        self._known: dict[bytes, Known] = {}
        self.malformed: set[str] = set()
        """The names of streams that turned out to be none of commits, of which nothing is to be believed."""

    def about(
        self,
        commit_id: bytes,
        size: int = MAX_METADATA,
        current: str | None = None,
        asked: Pending[Stream] | None = None,
    ) -> Known:
        """Find what is here of a commit and fetch its detached metadata; raise CorruptError if it is not trusted, or of
        another collection.

        ``size`` and ``current`` are as in :class:`Known`, ``asked`` is the answer to come with the stream ``current``.
        """
        known = self._known.get(commit_id)
        if known is None:
            known = Known(commit_id, size, current)
            known.detached = fetch_detached(self._core, self._transport, commit_id)
            self._find_held(known, asked)
            if self._terms.policy.is_on:
                self._verify(known)
            if self._terms.collection is not None:
                from composefs_ostree.pulling.checks import check_collection

                check_collection(self.object(known).commit, commit_id, self._terms.collection)
            self._known[commit_id] = known
        return known

    def _find_held(self, known: Known, asked: Pending[Stream] | None) -> None:
        """Look for the whole commit, then for one in part; the first that is there counts, also if it is damaged."""
        for name in (stream_name(known.commit_id), partial_name(known.commit_id)):
            answer = asked if name == known.current else None
            try:
                stream = (answer or self._core.stream_get(name=name)).result()
            except NotFoundError:
                continue
            except UNREADABLE as error:
                self._set_unreadable(known, name, error)
                return
            subpaths = open_commit(self._core, name, partial=True)[0].subpaths if is_partial(name) else None
            known.held = Held(name, stream.id, stream.named_refs, subpaths)
            if self._terms.is_repair:
                try:
                    self._read_through(name)
                except (*UNREADABLE, NotFoundError) as error:  # it may tell of paths that it does not have
                    self._set_unreadable(known, name, error)
                    self.malformed.add(name)
            return

    def _set_unreadable(self, known: Known, name: str, error: ExtError) -> None:
        self._core.log("warning", f"{name} is pulled again: {error.message}")
        known.unreadable = name

    def _read_through(self, name: str) -> None:
        """Read all that a held commit has, but its files' content; raise CorruptError or FormatError."""
        from composefs_ostree.held.dumptext import check_text
        from composefs_ostree.held.tree import load, load_commit

        commit, _ = open_commit(self._core, name, partial=True)
        if commit.subpaths == []:
            load_commit(commit)
        else:
            check_text(self._core, load(commit))

    def _verify(self, known: Known) -> None:
        from composefs_ostree.signatures.checking import verify
        from composefs_ostree.signatures.detached import parse_detached
        from composefs_ostree.signatures.record import facts_of

        data = self.object(known).data
        what = f"commit {known.commit_id.hex()}"
        detached = known.detached
        if detached is None and known.held is not None:
            detached = detached_metadata(self._core, known.held.named_refs)
        metadata = parse_detached(detached or b"", f"the detached metadata of {what}")
        known.signatures = facts_of(verify(data, metadata, self._terms.policy, what))

    def object(self, known: Known) -> CommitObject:
        """Return the commit object: of the held stream, of a static delta, or fetched.

        Raises NotFoundError if the source does not have it.
        """
        if known.object is None:
            from composefs_ostree.formats.objects import parse_commit
            from composefs_ostree.held.tree import commit_bytes

            # What a commit in part lacks is fetched one by one where it is, and not brought with the rest by a delta.
            delta = None if known.held is not None and self._source.has_objects else self._find_delta(known)
            if delta is not None:
                known.detached = known.detached or delta.detached
                known.object = CommitObject(known.commit_id, delta.commit, parse_commit(delta.commit), delta)
            elif known.held is not None and known.unreadable is None:
                data = commit_bytes(open_commit(self._core, known.held.name, partial=True)[0])
                known.object = CommitObject(known.commit_id, data, parse_commit(data))
            else:
                data, commit = fetch_commit(self._core, self._transport, known.commit_id, known.size)
                known.object = CommitObject(known.commit_id, data, commit)
        return known.object

    def _find_delta(self, known: Known) -> Delta | None:
        """Find a static delta from what the ref names now, or from the base; where there is neither, from nothing."""
        if not self._terms.use_deltas or self._terms.subpaths is not None:
            return None
        from composefs_ostree.deltas.finding import find

        names = dict.fromkeys([known.current, self._terms.base])
        held = [commit_of_stream(name) for name in names if name is not None and not is_partial(name)]
        return find(self._core, self._transport, self._source.heading(), known.commit_id, held)
