"""A thing found wrong in a repository, and the words for the kinds of such things.

The kinds are those of ``cfsctl fsck`` of composefs-rs 0.9.0, whose reports have lines ``fsck: KIND: …``; scripts look
for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Kind", "Problem"]

Kind = Literal[
    "broken-symlink",
    "entry-not-symlink",
    "image-invalid",
    "image-missing-object",
    "image-open-failed",
    "missing-named-ref",
    "missing-object-ref",
    "object-check-failed",
    "object-digest-mismatch",
    "object-invalid-name",
    "object-open-failed",
    "object-verity-failed",
    "object-verity-missing",
    "stream-open-failed",
    "stream-read-failed",
    "unexpected-file-type",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """``where`` is the path in the repository, or what was followed to get there; ``object`` the id concerned."""

    kind: Kind
    where: str
    message: str
    object: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"
