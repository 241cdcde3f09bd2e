"""A repository's summary: the whole, or for a ref of a Flatpak repository the part that has it."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError
from composefs_ostree.fetching.transport import Fetch, fetched
from composefs_ostree.formats.names import MAX_DETACHED
from composefs_ostree.remotes.record import policy_for
from composefs_ostree.remotes.summaryfiles import SummaryFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from composefs_ext import Core
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.remotes.kept import Kept
    from composefs_ostree.remotes.metalink import Metalink
    from composefs_ostree.remotes.record import Remote
    from composefs_ostree.remotes.subsets import Subsets
    from composefs_ostree.signatures.policy import Options

__all__ = ["Summaries", "subset_of"]

_SUMMARY = "summary"
_SIGNATURE = "summary.sig"


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
        options: Options,
        *,
        is_near: bool = False,
        metalink: Metalink | None = None,
        next_mirror: Callable[[], bool] = lambda: False,
    ) -> None:
        policy = policy_for(remote, options, summary=True)
        self._core = core
        self._transport = transport
        self._files = SummaryFiles(core, transport, policy, next_mirror, is_near=is_near)
        self._selection = None if remote is None else remote.selection
        self._is_near = is_near
        self._metalink = metalink
        self._whole: bytes | None = None
        self._is_whole_known = False
        self._subsets: Subsets | None = None

    def whole(self) -> bytes | None:
        """Return the summary, None if there is none and none is needed."""
        if not self._is_whole_known:
            self._whole = self._files.obtain(_SUMMARY, self._fetch_whole)
            self._is_whole_known = True
        return self._whole

    def heading(self) -> bytes | None:
        """Return a summary with the repository's metadata, and no refs if the index made fetching them needless."""
        heading = None if self._subsets is None else self._subsets.heading
        return self.whole() if heading is None else heading

    def for_ref(self, ref: str) -> bytes | None:
        """Return a summary that has the ref if any has: the part for the architecture of a Flatpak ref, or the whole.

        A remote that is to have one selection of the repository may have nothing else, although the whole has what was
        not selected, too; NotFoundError is raised if there is nothing of the selection.
        """
        subset = subset_of(ref, self._selection)
        if subset is None or (self._is_near and self._selection is None):
            return self.whole()
        subsets = self._indexed()
        if self._selection is not None and subsets.named is not None:
            return subsets.require(subset)
        part = subsets.get(subset)
        return self.whole() if part is None else part

    def to_list(self, subset: str | None) -> list[bytes]:
        """Return the summaries of a subset, else of what the remote selects if there is an index, else the whole."""
        if subset is not None:
            return [self._indexed().require(subset)]
        if self._selection is not None and (named := self._indexed().named) is not None:
            names = [name for name in named if name.rpartition("-")[0] == self._selection]  # one an architecture
            return [self._indexed().require(name) for name in names or [self._selection]]
        whole = self.whole()
        return [] if whole is None else [whole]

    def _indexed(self) -> Subsets:
        if self._subsets is None:
            from composefs_ostree.remotes.subsets import Subsets  # 4 ms, which most repositories need not cost

            self._subsets = Subsets(self._core, self._files)
        return self._subsets

    def _fetch_whole(self, where: str, kept: Kept | None) -> bytes | None:
        files, metalink = self._files, self._metalink
        if metalink is not None and kept is not None and metalink.is_of(kept.data):
            files.verify(kept.data, where, files.read(_SIGNATURE, MAX_DETACHED) if files.are_signed else None)
            return kept.data
        signature = Fetch(_SIGNATURE, MAX_DETACHED) if files.are_signed else None
        data, conditions = files.fetch_if_changed(_SUMMARY, kept, *([] if signature is None else [signature]))
        if data is None:
            if metalink is not None:
                raise NotFoundError.at(
                    where,
                    "there is no summary, although the metalink tells of one",
                    hint="the mirrors have changed or are incomplete; try again later",
                )
            if files.are_signed:
                raise NotFoundError.at(
                    where,
                    "there is no summary, although the remote wants a signed one",
                    hint="have ostree summary -u run there, or set gpg-verify-summary=false",
                )
            return None
        if metalink is not None:
            metalink.check(data, where)
        files.verify(data, where, None if signature is None else fetched(self._transport, signature))
        if not conditions.unchanged and (conditions.is_useful or metalink is not None):
            files.keep(where, data, conditions)
        return data
