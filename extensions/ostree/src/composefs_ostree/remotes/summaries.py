"""A repository's summary as the remote wants it: verified, and not fetched again while it is what it was.

What is kept from an earlier run is believed no more than what comes from the server: signatures are checked each time.
"""

from __future__ import annotations

from composefs_ext.errors import CorruptError, ExtError, FormatError, NotFoundError
from composefs_ostree.fetching.conditional import Conditions
from composefs_ostree.fetching.transport import Fetch, bad_object, fetched, read, read_all
from composefs_ostree.formats.names import MAX_METADATA
from composefs_ostree.remotes.kept import Kept, keep, load
from composefs_ostree.remotes.record import policy_for
from composefs_ostree.signatures.policy import NO_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from composefs_ext import Core
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.remotes.index import Subset
    from composefs_ostree.remotes.metalink import Metalink
    from composefs_ostree.remotes.record import Remote
    from composefs_ostree.signatures.policy import Options

    _Fetched = TypeVar("_Fetched")

__all__ = ["Summaries", "subset_of"]

_SUMMARY = "summary"
_SIGNATURE = "summary.sig"
_INDEX = "summary.idx"


def subset_of(ref: str, selection: str | None) -> str | None:
    """Return the subset of a Flatpak repository that a ref is in, or that of a selection; None if it is no such ref."""
    match ref.split("/"):
        case ["app" | "runtime", name, architecture, branch] if name and architecture and branch:
            pass
        case ["appstream" | "appstream2", architecture] if architecture:
            pass
        case _:
            return None
    if selection is None:
        return architecture
    # The selection's own list of apps has it in its name already: appstream2/SELECTION-ARCHITECTURE.
    return f"{selection}-{architecture.removeprefix(f'{selection}-')}"


def _sha256(data: bytes) -> bytes:
    from hashlib import sha256  # 4 ms that a repository without an index need not cost

    return sha256(data).digest()


class Summaries:
    """The summary of one repository, and the parts that its index names; each is fetched once in a run.

    Of one that ``is_near``, in a directory, nothing is kept, and a part is no less to read than the whole.
    ``metalink`` tells what the summary must be; ``next_mirror`` puts another mirror first and is False when there is
    none left.
    """

    def __init__(
        self,
        core: Core,
        transport: Transport,
        remote: Remote | None,
        options: Options | None,
        *,
        is_near: bool = False,
        metalink: Metalink | None = None,
        next_mirror: Callable[[], bool] = lambda: False,
    ) -> None:
        self._core = core
        self._transport = transport
        self._policy = policy_for(remote, options or NO_OPTIONS, summary=True)
        self._selection = None if remote is None else remote.selection
        self._is_near = is_near
        self._cache = None if is_near else core.cache
        self._metalink = metalink
        self._next_mirror = next_mirror
        self._whole: tuple[bytes | None] | None = None
        self._index: tuple[dict[str, Subset] | None] | None = None
        self._is_index_kept = False
        self._heading: bytes | None = None

    def whole(self) -> bytes | None:
        """Return the summary, None if there is none and none is needed."""
        if self._whole is None:
            self._whole = (self._insist(_SUMMARY, self._fetch_whole),)
        return self._whole[0]

    def heading(self) -> bytes | None:
        """Return a summary with the repository's metadata, and no refs if the index made fetching them needless."""
        return self.whole() if self._heading is None else self._heading

    def for_ref(self, ref: str) -> bytes | None:
        """Return a summary that has the ref if any has: the part for the architecture of a Flatpak ref, or the whole.

        A remote that is to have one selection of the repository may have nothing else, although the whole has what was
        not selected, too; NotFoundError is raised if there is nothing of the selection.
        """
        subset = subset_of(ref, self._selection)
        if subset is None or (self._is_near and self._selection is None):
            return self.whole()
        if self._selection is not None and self._subsets() is not None:
            return self._part_or_error(subset)
        part = self._part(subset)
        return self.whole() if part is None else part

    def to_list(self, subset: str | None) -> list[bytes]:
        """Return the summaries of a subset, else of what the remote selects if there is an index, else the whole."""
        if subset is not None:
            return [self._part_or_error(subset)]
        if self._selection is not None and (subsets := self._subsets()) is not None:
            names = [name for name in subsets if name.rpartition("-")[0] == self._selection]  # one an architecture
            return [self._part_or_error(name) for name in names or [self._selection]]
        whole = self.whole()
        return [] if whole is None else [whole]

    def _subsets(self) -> dict[str, Subset] | None:
        """Return the subsets that the index names, None if there is no index."""
        if self._index is None:
            self._index = (self._insist(_INDEX, self._fetch_index),)
        return self._index[0]

    def _insist(self, path: str, fetch: Callable[[str, Kept | None], _Fetched]) -> _Fetched:
        """Have a file fetched if it is not what is kept of it; once more, and from the next mirrors, if it is bad."""
        while True:
            where = self._transport.where(path)
            kept = load(self._cache, where)
            try:
                return fetch(where, kept)
            except CorruptError as error:
                if kept is not None:  # it may be that which does not fit, whatever the server says
                    try:
                        return fetch(where, None)
                    except CorruptError:
                        pass
                if not self._next_mirror():
                    raise
                self._core.log("warning", f"{error.message}; trying the next mirror")

    def _fetch_whole(self, where: str, kept: Kept | None) -> bytes | None:
        if self._metalink is not None and kept is not None and self._metalink.is_of(kept.data):
            return self._signed(kept.data, where, self._read_signature())
        return self._fetch_if_changed(where, kept)

    def _fetch_if_changed(self, where: str, kept: Kept | None) -> bytes | None:
        conditions = Conditions() if kept is None else kept.conditions
        summary = Fetch(_SUMMARY, MAX_METADATA, conditions)
        signature = Fetch(_SIGNATURE, _max_detached())
        # Both at the same time: the server may be far away.
        read_all(self._core, self._transport, [summary, signature] if self._policy.is_on else [summary])
        data = fetched(self._transport, summary)
        if data is None:
            if self._policy.is_on or self._metalink is not None:
                raise NotFoundError(
                    f"{where}: there is no summary, although the remote wants a signed one",
                    hint="have ostree summary -u run there, or set gpg-verify-summary=false",
                    subject=where,
                )
            return None
        if conditions.unchanged:
            assert kept is not None
            data = kept.data
        if self._metalink is not None:
            self._metalink.check(data, where)
        detached = fetched(self._transport, signature) if self._policy.is_on else None
        self._signed(data, where, detached)
        if not conditions.unchanged and (conditions.is_useful or self._metalink is not None):
            keep(self._cache, where, Kept(data, conditions.etag, conditions.last_modified))
        return data

    def _read_signature(self) -> bytes | None:
        return read(self._core, self._transport, _SIGNATURE, _max_detached()) if self._policy.is_on else None

    def _signed(self, data: bytes, where: str, detached: bytes | None) -> bytes:
        """Return what is signed as the remote wants it; raise CorruptError for anything else."""
        if self._policy.is_on:
            from composefs_ostree.signatures.checking import verify
            from composefs_ostree.signatures.detached import parse_detached

            try:
                metadata = {} if detached is None else parse_detached(detached, f"{where}.sig")
            except FormatError as error:
                raise bad_object(f"{where}.sig", error) from None
            verify(data, metadata, self._policy, where)
        return data

    # Flatpak's index

    def _fetch_index(self, where: str, kept: Kept | None) -> dict[str, Subset] | None:
        from composefs_ostree.remotes.index import heading, parse_index

        conditions = Conditions() if kept is None else kept.conditions
        fetch = Fetch(_INDEX, MAX_METADATA, conditions)
        read_all(self._core, self._transport, [fetch])
        data = fetched(self._transport, fetch)
        self._is_index_kept = conditions.unchanged
        if data is None:
            return None
        if conditions.unchanged:
            assert kept is not None
            data = kept.data
        if self._policy.is_on:
            self._signed(data, where, self._read_index_signature(data))
        try:
            index = parse_index(data)
            self._heading = heading(data)
        except ExtError as error:
            raise bad_object(where, error) from None
        if not conditions.unchanged and conditions.is_useful:
            keep(self._cache, where, Kept(data, conditions.etag, conditions.last_modified))
        return index

    def _read_index_signature(self, index: bytes) -> bytes | None:
        """Return the signature of this very index, or else the one that is there under the name that never changes."""
        for path in (f"summaries/{_sha256(index).hex()}.idx.sig", f"{_INDEX}.sig"):
            data = read(self._core, self._transport, path, _max_detached())
            if data is not None:
                return data
        return None

    def _part(self, name: str) -> bytes | None:
        """Return the summary of a subset, None if there is no index or the index does not have it."""
        subset = (self._subsets() or {}).get(name)
        if subset is None:
            return None
        where = f"{self._transport.where(_SUMMARY)} of {name}"
        kept = load(self._cache, where)
        digest = _sha256(kept.data) if kept is not None else b""
        if kept is not None and digest == subset.digest:
            return kept.data
        data = None
        if kept is not None and digest in subset.history:
            data = self._patched(kept.data, subset.delta_path(digest), subset.digest)
        if data is None:
            try:
                data = self._inflated(subset)
            except NotFoundError:
                if not self._is_index_kept:
                    raise
                # The server may have gone back to an older state, which it takes for unchanged by its date.
                self._index = (self._fetch_index(self._transport.where(_INDEX), None),)
                return self._part(name)
        keep(self._cache, where, Kept(data))
        return data

    def _part_or_error(self, name: str) -> bytes:
        """Return the summary of a subset; raise NotFoundError if there is none."""
        part = self._part(name)
        if part is None:
            subsets = self._subsets()
            where = self._transport.where(_INDEX)
            if subsets is None:
                raise NotFoundError(
                    f"{where}: not found, so there are no subsets",
                    hint="leave out --subset; flatpak build-update-repo makes the index",
                    subject=where,
                )
            raise NotFoundError(
                f"{where}: there is no subset {name!r}",
                hint=f"there are {', '.join(sorted(subsets))[:1000] or 'none'}",
                subject=name,
            )
        return part

    def _patched(self, old: bytes, path: str, digest: bytes) -> bytes | None:
        """Make the summary of an older one; None if that does not work, for it can be had in another way."""
        from composefs_ostree.remotes.index import apply_summary_delta, gunzip

        delta = read(self._core, self._transport, path)
        if delta is None:
            return None
        try:
            data = apply_summary_delta(old, gunzip(delta))
            if _sha256(data) == digest:
                return data
            problem = "what it makes has another checksum"
        except ExtError as error:
            problem = error.message
        self._core.log("warning", f"{self._transport.where(path)} is not used: {problem}")
        return None

    def _inflated(self, subset: Subset) -> bytes:
        from composefs_ostree.remotes.index import gunzip

        where = self._transport.where(subset.path)
        compressed = read(self._core, self._transport, subset.path)
        if compressed is None:
            raise NotFoundError(
                f"{where}: not found, although the summary index names it",
                hint="the repository is being changed; try again",
                subject=where,
            )
        try:
            data = gunzip(compressed)
            if _sha256(data) != subset.digest:
                raise CorruptError("its checksum is not that of the summary index")
        except ExtError as error:
            raise bad_object(where, error) from None
        return data


def _max_detached() -> int:
    from composefs_ostree.signatures.detached import MAX_DETACHED

    return MAX_DETACHED
