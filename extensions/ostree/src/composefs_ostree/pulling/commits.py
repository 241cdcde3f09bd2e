"""Bringing commits into the composefs repository: what is here of each already, what is missing, what it must pass.

Nothing that is stored has a name before all commits of a call are there and have passed; ``rows`` and ``images`` are
what to publish then.
"""

from __future__ import annotations

from composefs_ext.errors import CorruptError, FormatError, MissingObjectError, NotFoundError, TooLargeError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.commit_stream import IMAGE_REF, partial_name, stream_name
from composefs_ostree.formats.names import MAX_METADATA
from composefs_ostree.held import (
    DETACHED_REF,
    PARENT_REF,
    Asked,
    Here,
    commit_of_stream,
    detached_metadata,
    find_stream,
    image_of,
    is_partial,
    open_commit,
)
from composefs_ostree.sources.finding import fetch_detached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Self

    from composefs_ext import Core, Stream
    from composefs_ext.connection import Pending
    from composefs_ext.rows import StreamName
    from composefs_ostree.deltas.superblock import Delta
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.formats.objects import Commit
    from composefs_ostree.pulling.arrival import Arrivals
    from composefs_ostree.signatures.policy import Policy
    from composefs_ostree.sources.source import Source

    Check = Callable[[Commit, bytes], None]

__all__ = ["Commits", "Terms"]

_MAX_HISTORY = 64 << 20
"""Bytes of the commit objects that one ref and its parents may have."""


class Terms(NamedTuple):
    """How commits are pulled, whichever they are."""

    policy: Policy
    subpaths: Sequence[str] | None = None
    """None: all of a commit; empty: the commit object alone."""
    depth: int = 0
    """How many parents to pull too; negative: all."""
    base_name: str | None = None
    keep_nul: bool | None = None
    """Whether images are to be those of composefs-rs 0.9.0 (composefs_ostree.dumptext); None: as they are here."""
    use_deltas: bool = False
    is_repair: bool = False


class Job:
    """A commit that is wanted: what the repository holds of it, and what the source says.

    ``name`` is that of the held stream, ``stream`` the stream itself (None: none that can be read), ``subpaths`` what
    it has; ``detached`` is the detached metadata, ``data`` and ``commit`` the commit object once somebody needed it.
    """

    def __init__(self, commit_id: bytes, size: int = MAX_METADATA, current: str | None = None) -> None:
        """``size`` bounds the commit object; ``current`` is the stream that its ref names here now, or one like it."""
        self.commit_id = commit_id
        self.size = size
        self.current = current
        self.name: str | None = None
        self.stream: Stream | None = None
        self.subpaths: Sequence[str] | None = None
        self.detached = b""
        self.data = b""
        self.commit: Commit | None = None
        self.delta: Delta | None = None
        self.signatures: list[dict[str, Any]] = []
        self.parents: list[Job] = []
        self.is_parent = False
        self.here: Here | None = None


class Commits:
    """The commits of one call; a context manager, at whose end all must be published that was stored."""

    def __init__(self, core: Core, source: Source, transport: Transport, terms: Terms) -> None:
        self._core = core
        self._source = source
        self._transport = transport
        self._terms = terms
        self._jobs: dict[bytes, Job] = {}
        self._arrivals: Arrivals | None = None
        self._asked: dict[str, Asked] = {}
        self.rows: dict[str, StreamName] = {}
        self.images: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._arrivals is not None:
            if kind is None:
                self._arrivals.settled()
            self._arrivals.close()

    def bring(
        self,
        commit_id: bytes,
        size: int = MAX_METADATA,
        current: str | None = None,
        checks: Sequence[Check] = (),
        asked: Pending[Stream] | None = None,
    ) -> Job:
        """Have a commit, and as many of its parents as are wanted, stored.

        ``checks`` raise if the commit may not have the ref that it is pulled by.  ``asked`` is the answer to come with
        the stream ``current``.  A commit that was brought before is only checked.
        """
        job = self._jobs.get(commit_id) or self._look(Job(commit_id, size, current), asked)
        wants_tree = self._terms.subpaths is None or len(self._terms.subpaths) > 0
        if current is not None and current != job.name and job.stream is None and job.here is None and wants_tree:
            # It is the base: the core reads it while we fetch the commit object and load what a pull takes.
            self._asked[current] = self._asked.get(current) or Asked(self._core, current, sizes=True)
        for check in checks:
            check(self._object(job), commit_id)
        if job.here is None or (self._terms.depth and not job.parents):
            job.parents = self._history(job)
            below: Here | None = None
            for each in (*reversed(job.parents), job):
                if each.here is None:
                    each.here = self._keep(each, below)
                below = each.here
        return job

    def _history(self, job: Job) -> list[Job]:
        """Find the parents that are wanted too, nearest first; the history of the source may be shorter."""
        parents: list[Job] = []
        total = len(job.data)
        while len(parents) != self._terms.depth:
            child = parents[-1] if parents else job
            parent = self._object(child).parent
            if parent is None:
                break
            near = child.current if child.stream is None else child.name
            try:
                each = self._jobs.get(parent) or self._look(Job(parent, current=near))
                self._object(each)
            except NotFoundError:
                break
            each.is_parent = each.here is None
            parents.append(each)
            total += len(each.data)
            if total > _MAX_HISTORY:
                raise TooLargeError(
                    f"the commit objects of {job.commit_id.hex()} and its parents have more than {_MAX_HISTORY} bytes",
                    hint="give a smaller --depth",
                )
        return parents

    # What is known of a commit

    def _look(self, job: Job, asked: Pending[Stream] | None = None) -> Job:
        """Find what is here of a commit and fetch its detached metadata; raise CorruptError if it is not trusted."""
        job.detached = fetch_detached(self._core, self._transport, job.commit_id)
        for name in (stream_name(job.commit_id), partial_name(job.commit_id)):
            try:
                known = asked if name == job.current else None
                job.stream = (known or self._core.stream_get(name=name)).result()
            except NotFoundError:
                continue
            except (CorruptError, FormatError, MissingObjectError) as error:
                self._core.log("warning", f"{name} is pulled again: {error.message}")
            job.name = name
            break
        if job.name == partial_name(job.commit_id) and job.stream is not None:
            job.subpaths = open_commit(self._core, job.name, partial=True)[0].subpaths
        if self._terms.policy.is_on:
            self._verify(job)
        self._jobs[job.commit_id] = job
        return job

    def _verify(self, job: Job) -> None:
        from composefs_ostree.signatures.checking import verify
        from composefs_ostree.signatures.detached import parse_detached
        from composefs_ostree.signatures.record import facts_of

        self._object(job)
        what = f"commit {job.commit_id.hex()}"
        detached = job.detached
        if not detached and job.stream is not None:
            detached = detached_metadata(self._core, job.stream)
        metadata = parse_detached(detached, f"the detached metadata of {what}")
        job.signatures = facts_of(verify(job.data, metadata, self._terms.policy, what))

    def _object(self, job: Job) -> Commit:
        """Return the commit object: of the held stream, of a static delta, or fetched."""
        if job.commit is None:
            from composefs_ostree.formats.objects import parse_commit
            from composefs_ostree.formats.summary import SummaryRef
            from composefs_ostree.sources.finding import fetch_commit
            from composefs_ostree.tree import commit_bytes

            if job.stream is not None and job.name is not None:
                job.data = commit_bytes(open_commit(self._core, job.name, partial=True)[0])
                job.commit = parse_commit(job.data)
            elif (delta := self._find_delta(job)) is not None:
                job.delta = delta
                job.data = delta.commit
                job.detached = job.detached or delta.detached or b""
                job.commit = parse_commit(job.data)
            else:
                job.data, job.commit = fetch_commit(self._core, self._transport, SummaryRef(job.commit_id, job.size))
        return job.commit

    def _find_delta(self, job: Job) -> Delta | None:
        """Find a static delta from what the ref names now, or from the base; where there is neither, from nothing."""
        if not self._terms.use_deltas or self._terms.subpaths is not None:
            return None
        from composefs_ostree.deltas.finding import find

        names = [job.current, *([find_stream(self._core, self._terms.base_name)] if self._terms.base_name else [])]
        held = [commit for name in dict.fromkeys(names) if name and (commit := _whole(name))]
        return find(self._core, self._transport, self._source.heading(), job.commit_id, held)

    # What is missing

    def _keep(self, job: Job, parent: Here | None) -> Here:
        """Have a commit stored as it is wanted; note what to publish."""
        kept = {} if job.stream is None else {name: ref for name, ref in job.stream.named_refs if name != IMAGE_REF}
        beside = kept | self._detached_ref(job)
        if parent is not None:
            beside[PARENT_REF] = parent.stream
        damaged = self._damaged(job) if self._terms.is_repair else set()
        if damaged or not self._suffices(job):
            here = self._receive(job, beside, damaged)
        else:
            assert job.name is not None
            assert job.stream is not None
            here = Here(job.name, job.stream.id, image_of(job.stream), job.subpaths)
            if beside != kept:
                image = [] if here.image is None else [(IMAGE_REF, here.image)]
                from composefs_ostree.storing import put_again

                here = here._replace(stream=put_again(self._core, job.name, [*image, *beside.items()]))
        # Also if nothing is new: who pulled it may have been killed before its names were durable.
        row: StreamName = {"name": here.name, "id": here.stream, "if_exists": "keep"}
        if job.name == here.name and job.stream is None:
            row["if_exists"] = "replace"  # what is there cannot be read
        elif job.name == here.name and job.stream is not None and job.stream.id != here.stream:
            row |= {"if_exists": "replace", "expect": job.stream.id}
        self.rows[here.name] = row
        if here.image is not None:
            self.images.add(here.image)
        return here

    def _suffices(self, job: Job) -> bool:
        """Tell whether what is held has all that is wanted, and the wanted image."""
        if job.stream is None or job.name is None or self._part(job) != job.subpaths:
            return False
        image = image_of(job.stream)
        if image is None:
            return True
        if self._core.object_has([image]).result() != [True]:
            return False
        if self._terms.keep_nul is None:
            return True
        from composefs_ostree.dumptext import draft_dump
        from composefs_ostree.tree import load

        commit, _ = open_commit(self._core, job.name, partial=True)
        dump = draft_dump(self._core, load(commit), keep_nul=self._terms.keep_nul)
        return self._core.image_digest(*dump.finish()).result()["id"] == image

    def _part(self, job: Job) -> Sequence[str] | None:
        """Return what a commit shall have in the end: nothing that is here is given up."""
        if job.stream is None or self._terms.subpaths is None:
            return self._terms.subpaths
        if job.subpaths is None:
            return None
        from composefs_ostree.part import joined_subpaths

        return joined_subpaths([*job.subpaths, *self._terms.subpaths])

    def _receive(self, job: Job, beside: dict[str, str], damaged: set[str]) -> Here:
        from composefs_ostree.pulling.arrival import Arrivals
        from composefs_ostree.pulling.wish import Wish

        commit = self._object(job)
        if self._arrivals is None:
            self._arrivals = Arrivals(
                self._core,
                self._source,
                self._transport,
                keep_nul=bool(self._terms.keep_nul),
                uses_cache=not self._terms.is_repair,  # nothing tells whether what it names is sound
            )
        wish = Wish(
            commit_id=job.commit_id,
            data=job.data,
            commit=commit,
            bases=self._bases(job),
            damaged=damaged,
            subpaths=self._part(job),
            named_refs=list(beside.items()),
            delta=job.delta,
            may_lack_paths=job.is_parent,
            asked=self._asked,
        )
        return self._arrivals.receive(wish)

    def _bases(self, job: Job) -> list[str]:
        """Return the names of the streams that may have something of a commit, the likeliest first."""
        names = [find_stream(self._core, self._terms.base_name)] if self._terms.base_name else []
        if job.current is not None and not (job.current == job.name and job.stream is None):
            names.append(job.current)
        if job.commit is not None and job.commit.parent is not None:
            names.append(stream_name(job.commit.parent))
        if job.stream is not None and job.name is not None:
            names.append(job.name)
        return names

    def _detached_ref(self, job: Job) -> dict[str, str]:
        """Have new detached metadata stored; return how the commit's stream names it."""
        if not job.detached:
            return {}
        if job.stream is not None and detached_metadata(self._core, job.stream) == job.detached:
            return {}
        from composefs_ostree.storing import put_detached

        kept = put_detached(self._core, job.commit_id, job.detached)
        self.rows[kept["name"]] = kept
        return {DETACHED_REF: kept["id"]}

    def _damaged(self, job: Job) -> set[str]:
        """Read everything that is here of a commit, and of those that would be its bases; return what is bad."""
        from composefs_ext.damage import damaged_objects

        self._object(job)
        return damaged_objects(self._core, self._bases(job))


def _whole(name: str) -> bytes | None:
    """Return the commit of a stream that has all of it."""
    return None if is_partial(name) else commit_of_stream(name)
