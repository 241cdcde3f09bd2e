"""Bringing commits into the composefs repository: what is missing of each, and what it must pass.

Nothing that is stored has a name before all commits of a call are there and have passed; ``rows`` and ``images`` are
what to publish then.
"""

from __future__ import annotations

from composefs_ext.errors import UNREADABLE, NotFoundError, TooLargeError
from composefs_ostree.formats.commit_stream import IMAGE_REF, stream_name
from composefs_ostree.formats.names import MAX_METADATA
from composefs_ostree.held.refs import similar_target
from composefs_ostree.held.streams import DETACHED_REF, PARENT_REF, Asked, detached_metadata, open_commit
from composefs_ostree.pulling.known import Brought, Inquiry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from composefs_ext import Core, Stream
    from composefs_ext.connection import Pending
    from composefs_ext.rows import StreamName
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.formats.objects import Commit
    from composefs_ostree.pulling.known import Held, Known, Terms
    from composefs_ostree.pulling.receiving import Receiver
    from composefs_ostree.sources.source import ObjectSource

    Check = Callable[[Commit, bytes], None]

__all__ = ["Commits"]

_MAX_HISTORY = 64 << 20
"""Bytes of the commit objects that one ref and its parents may have, with their detached metadata."""


class Commits:
    """The commits of one call; a context manager, at whose end all must be published that was stored."""

    def __init__(self, core: Core, source: ObjectSource, transport: Transport, terms: Terms) -> None:
        self._core = core
        self._source = source
        self._transport = transport
        self._terms = terms
        self._inquiry = Inquiry(core, source, transport, terms)
        self._receiver: Receiver | None = None
        self._asked: dict[str, Asked] = {}
        self.rows: dict[str, StreamName] = {}
        self.images: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._receiver is not None:
            self._receiver.close(are_named=kind is None)

    def bring(
        self,
        commit_id: bytes,
        size: int = MAX_METADATA,
        current: str | None = None,
        checks: Sequence[Check] = (),
        asked: Pending[Stream] | None = None,
        ref: str | None = None,
    ) -> Brought:
        """Have a commit, and as many of its parents as are wanted, stored; one that was brought before is only checked.

        ``size`` bounds the commit object.  ``ref`` will name the commit, and now names the stream ``current``, with
        which the answer ``asked`` is to come; while it names none, what refs like it name may have much of the commit.
        ``checks`` raise if the commit may not have the ref.
        """
        known = self._inquiry.about(commit_id, size, current, asked)
        lacks_tree = self._terms.subpaths != [] and known.held is None and known.here is None
        if lacks_tree and current is not None and current != known.unreadable:
            # It is the base: the core reads it while we fetch the commit object and load what a pull takes.
            self._asked[current] = self._asked.get(current) or Asked(self._core, current, sizes=True)
        for check in checks:
            check(self._inquiry.object(known).commit, commit_id)
        if lacks_tree and current is None and ref is not None:
            known.similar = similar_target(self._core, ref)
        if known.brought is None:
            known.brought = self._bring(known)
        return known.brought

    def _bring(self, known: Known) -> Brought:
        """Have a commit stored, behind its parents, each of which the stream of its child names."""
        history = self._history(known)
        parents: dict[bytes, Held] = {}
        below: Held | None = None
        for each in reversed(history):
            below = parents[each.commit_id] = self._keep(each, below, may_lack_paths=True)
        here = self._keep(known, below, may_lack_paths=False)
        return Brought(known.commit_id, here, dict(reversed(parents.items())), known.signatures)

    def _history(self, known: Known) -> list[Known]:
        """Find the parents that are wanted too, nearest first; the history of the source may be shorter."""
        parents: list[Known] = []
        if not self._terms.depth:
            return parents  # without a look at the commit object
        child = known
        _, data, commit, _ = self._inquiry.object(child)
        total = len(data) + len(child.detached or b"")
        while commit.parent is not None and len(parents) != self._terms.depth:
            near = child.current if child.held is None else child.held.name
            try:
                child = self._inquiry.about(commit.parent, current=near)
                _, data, commit, _ = self._inquiry.object(child)
            except NotFoundError:
                break
            parents.append(child)
            total += len(data) + len(child.detached or b"")
            if total > _MAX_HISTORY:
                raise TooLargeError(
                    f"the commit objects of {known.commit_id.hex()} and its parents have more than {_MAX_HISTORY} "
                    "bytes with their detached metadata",
                    hint="give a smaller --depth",
                )
        return parents

    def _keep(self, known: Known, parent: Held | None, *, may_lack_paths: bool) -> Held:
        """Have a commit stored as it is wanted; note what to publish.

        ``parent`` is the one that its stream names, so that it is kept as long; ``may_lack_paths`` is as in
        :meth:`~composefs_ostree.pulling.receiving.Receiver.receive`.
        """
        # Once, and once more if it was without a parent then: it was the last of another one's history.
        if known.here is not None and (parent is None or known.parent is not None):
            return known.here
        here = self._store(known, parent, may_lack_paths=may_lack_paths)
        self.rows[here.name] = _naming(known, here)
        if here.image is not None:
            self.images.add(here.image)
        known.here, known.parent = here._replace(metadata=0, files=0, parts=0), parent  # that is counted once
        return here

    def _store(self, known: Known, parent: Held | None, *, may_lack_paths: bool) -> Held:
        """Have a commit stored, or only its stream anew, or nothing, where that is all that what is here lacks."""
        # What this call has brought is as it is wanted; but as another one's parent it may lack some of the subpaths.
        brought = None if self._terms.subpaths else known.here
        held = brought or known.held
        if held is None:
            self._inquiry.object(known)  # the static delta that it may come in may have its detached metadata
        had = {} if held is None else dict(held.named_refs)
        named = had | self._detached_ref(known)
        if parent is not None:
            named[PARENT_REF] = parent.stream
        damaged = self._damaged(known) if self._terms.is_repair and brought is None else set()
        is_unreadable = brought is None and known.unreadable is not None
        if held is None or damaged or is_unreadable or not (brought or self._suffices(held)):
            return self._receive(known, named, damaged, may_lack_paths=may_lack_paths)
        if named == had:
            return held
        from composefs_ostree.held.storing import put_again

        refs = list(named.items())
        return held._replace(stream=put_again(self._core, held.stream, refs), named_refs=refs)

    def _suffices(self, held: Held) -> bool:
        """Tell whether what is held has all that is wanted, and the wanted image."""
        if self._subpaths(held) != held.subpaths:
            return False
        image = held.image
        if image is None:
            return True
        if self._core.object_has([image]).result() != [True]:
            return False
        if self._terms.keep_nul is None and not self._terms.is_repair:
            return True
        from composefs_ostree.held.dumptext import is_image_of
        from composefs_ostree.held.tree import load

        commit, _ = open_commit(self._core, held.name, partial=True)
        return is_image_of(self._core, load(commit), image, keep_nul=self._terms.keep_nul)

    def _subpaths(self, held: Held | None) -> Sequence[str] | None:
        """Return the paths that a commit shall have in the end, None for all: nothing that is here is given up."""
        if held is None or self._terms.subpaths is None:
            return self._terms.subpaths
        if held.subpaths is None:
            return None
        from composefs_ostree.held.excerpt import joined_subpaths

        return joined_subpaths([*held.subpaths, *self._terms.subpaths])

    def _receive(self, known: Known, named: dict[str, str], damaged: set[str], *, may_lack_paths: bool) -> Held:
        from composefs_ostree.pulling.receiving import Receiver

        if self._receiver is None:
            self._receiver = Receiver(
                self._core,
                self._source,
                self._transport,
                self._asked,
                keep_nul=bool(self._terms.keep_nul),
                uses_cache=not self._terms.is_repair,  # nothing tells whether what it names is sound
            )
        return self._receiver.receive(
            self._inquiry.object(known),
            self._subpaths(known.held),
            self._bases(known),
            damaged,
            [(name, ref) for name, ref in named.items() if name != IMAGE_REF],  # it gets another one
            may_lack_paths=may_lack_paths,
        )

    def _bases(self, known: Known) -> list[str]:
        """Return the names of the streams that may have something of a commit, the likeliest first."""
        names = [self._terms.base] if self._terms.base is not None else []
        if known.current is not None and known.current != known.unreadable:
            names.append(known.current)
        parent = self._inquiry.object(known).commit.parent
        if parent is not None:
            names.append(stream_name(parent))
        if known.held is not None:
            names.append(known.held.name)
        if self._terms.base is None and known.similar is not None:
            names.append(known.similar)
        return [name for name in names if name not in self._inquiry.malformed]

    def _detached_ref(self, known: Known) -> dict[str, str]:
        """Have new detached metadata stored; return how the commit's stream names it."""
        if known.detached is None and not self._terms.is_repair:
            return {}
        held = self._held_detached(known)
        if known.detached is None or known.detached == held:
            return {}
        from composefs_ostree.held.storing import put_detached

        kept = put_detached(self._core, known.commit_id, known.detached)
        self.rows[kept["name"]] = kept
        return {DETACHED_REF: kept["id"]}

    def _held_detached(self, known: Known) -> bytes | None:
        """Return the detached metadata that are here, empty where there never were any; None if they are damaged."""
        try:
            return b"" if known.held is None else detached_metadata(self._core, known.held.named_refs) or b""
        except UNREADABLE as error:
            what = "cannot be repaired, the source has none" if known.detached is None else "are pulled again"
            self._core.log(
                "warning", f"the detached metadata of commit {known.commit_id.hex()} {what}: {error.message}"
            )
            return None

    def _damaged(self, known: Known) -> set[str]:
        """Read everything that is here of a commit, and of those that would be its bases; return what is bad."""
        from composefs_ext.damage import damaged_objects

        return damaged_objects(self._core, self._bases(known))


def _naming(known: Known, here: Held) -> StreamName:
    """Return what to publish of a commit's stream, what it replaces with it.

    Also if nothing is new: who pulled it may have been killed before its names were durable.
    """
    row: StreamName = {"name": here.name, "id": here.stream, "if_exists": "keep"}
    if here.name == known.unreadable:
        row["if_exists"] = "replace"
    elif known.held is not None and known.held.name == here.name and known.held.stream != here.stream:
        row |= {"if_exists": "replace", "expect": known.held.stream}
    return row
