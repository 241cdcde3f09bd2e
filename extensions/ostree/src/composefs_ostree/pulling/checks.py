"""What a commit must be before its ref is set: meant for that ref, and not older than the one it follows.

The messages are ostree's.  Source: ostree-pull(1); libostree, ostree-repo-pull.c and ostree-repo-verity.c.
"""

from __future__ import annotations

import time

from composefs_ext.errors import CorruptError
from composefs_ostree.formats.objects import Commit

__all__ = ["check_bindings", "check_not_older"]

_REMEDY = "pull it by the ref it is bound to or by its id, or give --disable-verify-bindings"


def check_bindings(commit: Commit, commit_id: bytes, ref: str, collection: str | None = None) -> None:
    """Raise CorruptError if the commit says which refs it is for and this one is not among them.

    Else a server could hand out one ref's commit, with its good signature, under the name of another.  From a remote
    with a collection id, both bindings must be there and right.
    """
    name = f"commit {commit_id.hex()}"
    binding = commit.metadata.get("ostree.ref-binding")
    if binding is None:
        if collection is None:
            return
        raise CorruptError(
            f"{name}: expected commit metadata to have ref binding information, found none", hint=_REMEDY, subject=ref
        )
    refs = binding.value if binding.signature == "as" else []
    if ref not in refs:
        raise CorruptError(
            f"{name} is bound to {', '.join(refs)[:300] or 'no ref'}, not to {ref!r}", hint=_REMEDY, subject=ref
        )
    if collection is None:
        return
    bound = commit.metadata.get("ostree.collection-binding")
    if bound is None or bound.signature != "s":
        raise CorruptError(
            f"{name}: expected commit metadata to have collection ID binding information, found none",
            hint=_REMEDY,
            subject=ref,
        )
    if bound.value != collection:
        raise CorruptError(
            f"{name} has collection ID {bound.value[:300]!r} in collection binding metadata, "
            f"while the remote it came from has collection ID {collection!r}",
            hint=_REMEDY,
            subject=ref,
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
