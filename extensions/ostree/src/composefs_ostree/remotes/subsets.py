"""The summaries of a Flatpak repository's subsets, by its index: fetched whole, or made of those that are kept."""

from __future__ import annotations

from hashlib import sha256

from composefs_ext import Core
from composefs_ext.errors import CorruptError, ExtError, NotFoundError
from composefs_ostree.fetching.blame import Blaming
from composefs_ostree.fetching.conditional import Conditions
from composefs_ostree.formats.names import MAX_DETACHED
from composefs_ostree.remotes.index import Subset, apply_summary_delta, gunzip, parse_index
from composefs_ostree.remotes.kept import Kept
from composefs_ostree.remotes.summaryfiles import SummaryFiles

__all__ = ["Subsets"]

_INDEX = "summary.idx"


class Subsets:
    """What the index tells, which is fetched once: ``named``, None if there is no index, and ``heading``.

    That is a summary with the repository's metadata and no refs.
    """

    def __init__(self, core: Core, files: SummaryFiles) -> None:
        self._core = core
        self._files = files
        self.heading: bytes | None = None
        self._is_index_kept = False
        self.named: dict[str, Subset] | None = files.obtain(_INDEX, self._fetch_index)

    def get(self, name: str) -> bytes | None:
        """Return the summary of a subset, None if there is no index or the index does not have it."""
        subset = (self.named or {}).get(name)
        if subset is None:
            return None
        where = f"{self._files.where('summary')} of {name}"
        kept = self._files.kept(where)
        digest = b"" if kept is None else sha256(kept.data).digest()
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
                self.named = self._fetch_index(self._files.where(_INDEX), None)
                return self.get(name)
        self._files.keep(where, data, Conditions())
        return data

    def require(self, name: str) -> bytes:
        """Return the summary of a subset; raise NotFoundError if there is none."""
        part = self.get(name)
        if part is not None:
            return part
        where = self._files.where(_INDEX)
        if self.named is None:
            raise NotFoundError.at(
                where,
                "not found, so there are no subsets",
                hint="leave out --subset; flatpak build-update-repo makes the index",
            )
        raise NotFoundError(
            f"{where}: there is no subset {name!r}",
            hint=f"there are {', '.join(sorted(self.named))[:1000] or 'none'}",
            subject=name,
        )

    def _fetch_index(self, where: str, kept: Kept | None) -> dict[str, Subset] | None:
        data, conditions = self._files.fetch_if_changed(_INDEX, kept)
        self._is_index_kept = conditions.unchanged
        if data is None:
            return None
        if self._files.are_signed:
            self._files.verify(data, where, self._read_signature(data))
        with Blaming(where):
            index, self.heading = parse_index(data)
        if not conditions.unchanged and conditions.is_useful:
            self._files.keep(where, data, conditions)
        return index

    def _read_signature(self, index: bytes) -> bytes | None:
        """Return the signature of this very index, or else the one that is there under the name that never changes."""
        for path in (f"summaries/{sha256(index).hexdigest()}.idx.sig", f"{_INDEX}.sig"):
            data = self._files.read(path, MAX_DETACHED)
            if data is not None:
                return data
        return None

    def _patched(self, old: bytes, path: str, digest: bytes) -> bytes | None:
        """Make the summary of an older one; None if that does not work, for it can be had in another way."""
        delta = self._files.read(path)
        if delta is None:
            return None
        try:
            data = apply_summary_delta(old, gunzip(delta))
            if sha256(data).digest() == digest:
                return data
            problem = "what it makes has another checksum"
        except ExtError as error:
            problem = error.message
        self._core.log("warning", f"{self._files.where(path)} is not used: {problem}")
        return None

    def _inflated(self, subset: Subset) -> bytes:
        where = self._files.where(subset.path)
        compressed = self._files.read(subset.path)
        if compressed is None:
            raise NotFoundError.at(
                where,
                "not found, although the summary index names it",
                hint="the repository is being changed; try again",
            )
        with Blaming(where):
            data = gunzip(compressed)
            if sha256(data).digest() != subset.digest:
                raise CorruptError("its checksum is not that of the summary index")
        return data
