"""What options of ``ostree commit`` change of owners, modes and attributes."""

from __future__ import annotations

import stat
from typing import NamedTuple

from composefs_ostree.committing.chosen import NOTHING, ChosenPaths, NewMode
from composefs_ostree.committing.inodes import Meta

__all__ = ["Changes"]


class Changes(NamedTuple):
    """What ``commit`` changes of a tree's metadata, ``paths`` what of single entries.

    Executables are made read-only before an entry gets its new mode, and permissions canonical after that.
    """

    uid: int | None = None
    gid: int | None = None
    keep_xattrs: bool = True
    canonical: bool = False
    read_only_executables: bool = False
    paths: ChosenPaths = NOTHING

    def apply(self, meta: Meta, new_mode: NewMode | None = None) -> Meta:
        """Return the metadata that are committed, for an entry with a new mode or without.

        Canonical permissions belong to nobody in particular: root's, and of the mode only what 0755 has.
        """
        uid, gid, mode, xattrs = meta
        if self.read_only_executables and stat.S_ISREG(mode) and mode & 0o111:
            mode &= ~0o222
        if new_mode is not None:
            mode = new_mode.of(mode)
        if self.canonical:
            uid = gid = 0
            if not stat.S_ISLNK(mode):
                mode &= stat.S_IFMT(mode) | 0o755
        return Meta(
            uid if self.uid is None else self.uid,
            gid if self.gid is None else self.gid,
            mode,
            xattrs if self.keep_xattrs else (),
        )
