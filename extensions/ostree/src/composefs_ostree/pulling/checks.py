"""What a commit must be: of its remote's collection, meant for its ref, and not older than the one it follows there.

The messages are ostree's.  Source: ostree-pull(1); libostree, ostree-repo-pull.c and ostree-repo-verity.c.
"""

from __future__ import annotations

import time

from composefs_ext.errors import CorruptError
from composefs_ostree.formats.objects import Commit

__all__ = ["check_collection", "check_not_older", "check_ref"]

_REFS = "ostree.ref-binding"


def check_ref(commit: Commit, commit_id: bytes, ref: str) -> None:
    """Raise CorruptError if the commit says which refs it is for and this one is not among them.

    Else a server could hand out one ref's commit, with its good signature, under the name of another.
    """
    binding = commit.metadata.get(_REFS)
    if binding is None:
        return
    refs = binding.value if binding.signature == "as" else []
    if ref not in refs:
        raise CorruptError(
            f"commit {commit_id.hex()} is bound to {', '.join(refs)[:300] or 'no ref'}, not to {ref!r}",
            hint="pull it by the ref it is bound to or by its id, or give --disable-verify-bindings",
            subject=ref,
        )


def check_collection(commit: Commit, commit_id: bytes, collection: str) -> None:
    """Raise CorruptError unless the commit says which refs it is for, and that they are of this collection."""
    remedy = "give --disable-verify-bindings to pull it all the same"
    refs, bound = map(commit.metadata.get, (_REFS, "ostree.collection-binding"))
    if refs is None or refs.signature != "as":
        problem = ": expected commit metadata to have ref binding information, found none"
    elif bound is None or bound.signature != "s":
        problem = ": expected commit metadata to have collection ID binding information, found none"
    elif bound.value != collection:
        remedy = "pull it from a remote of its collection, or give --disable-verify-bindings"
        problem = (
            f" has collection ID {bound.value[:300]!r} in collection binding metadata, "
            f"while the remote it came from has collection ID {collection!r}"
        )
    else:
        return
    raise CorruptError(
        f"commit {commit_id.hex()}{problem}",
        hint=remedy,
        subject=commit_id.hex(),
    )


def check_not_older(commit: Commit, commit_id: bytes, current: Commit, current_id: bytes) -> None:
    """Raise CorruptError if a commit is older than the one it shall take the place of."""
    if commit.timestamp < current.timestamp:
        raise CorruptError(
            f"upgrade target revision {commit_id.hex()} with timestamp {_date(commit)!r} is chronologically older "
            f"than current revision {current_id.hex()} with timestamp {_date(current)!r}",
            hint="somebody may be offering old commits; to go back on purpose pull without --timestamp-check",
            subject=commit_id.hex(),
        )


def _date(commit: Commit) -> str:
    try:
        return time.asctime(time.gmtime(commit.timestamp))
    except (OverflowError, OSError, ValueError):
        return str(commit.timestamp)
