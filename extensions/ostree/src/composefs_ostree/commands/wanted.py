"""What the user wants pulled: ``REF``, ``REF@COMMIT`` or ``COMMIT``, of a remote also ``REMOTE:REF``."""

from __future__ import annotations

from composefs_ext.errors import UsageError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.names import check_ref, is_commit_id

__all__ = ["Wanted", "parse_wanted"]


class Wanted(NamedTuple):
    """A commit to pull: ``ref`` is its ref at the source, ``local`` the one to set here, ``commit_id`` the id if given.

    Without ``ref`` there is an id.  The ref of a remote is here ``REMOTE:REF``, as ostree writes it.
    """

    ref: str | None
    local: str | None
    commit_id: bytes | None

    @property
    def name(self) -> str:
        """What to look up at the source."""
        return self.commit_id.hex() if self.commit_id is not None else self.ref or ""


def parse_wanted(text: str, remote: str | None) -> Wanted:
    """Read one word of the command line; ``remote`` is the name of the remote that it is pulled from, if it has one.

    Raises UsageError.
    """
    if remote is not None:
        text = text.removeprefix(f"{remote}:")
    ref, at, commit = text.partition("@")
    if at and not is_commit_id(commit):
        raise UsageError(
            f"{commit[:200]!r} in {text[:200]!r} is not a commit id", hint="give REF@COMMIT with all 64 digits"
        )
    if not at and is_commit_id(ref):
        return Wanted(None, None, bytes.fromhex(ref))
    check_ref(ref)
    return Wanted(ref, ref if remote is None else f"{remote}:{ref}", bytes.fromhex(commit) if at else None)
