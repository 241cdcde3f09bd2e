"""Every inode of an image, once, however its directories point at each other.

What bounds the walk is counting.  An inode *claims* its own bytes, its attributes and its data.  In an image as any
writer makes it these do not overlap, so together they are at most the image: a walk that keeps count ends in time and
memory proportional to the image's size.  A directory has one name, so there are neither cycles nor trees shared by
many parents.  Names are counted too, for what is small in the image is not in memory.

What bounds who writes the tree down is counting too: paths repeat the names of directories, and attributes that are
stored once are written for each file.
"""

from __future__ import annotations

import mmap
import stat
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from composefs.erofs.layout import FILE_TYPES, SLOT
from composefs.erofs.reader.image import Entries, Image, Inode, count_names, malformed
from composefs.paths import shown
from composefs.tree import TYPE_MASK

__all__ = ["Listing", "Walk"]

EXPANSION = 1024
EXPANSION_FREE = 64 << 20
"""How much longer than the image a text of it may be: so many times, and so many bytes for the smallest.  What is
honest stays below, and a few kilobytes do not become terabytes."""

_OTHER, _DIRECTORY = 1, 2
"""What has been met."""


class Listing(NamedTuple):
    """A directory and what is in it, without ``.`` and ``..``; an inode that was met before is None."""

    nid: int
    names: list[bytes]
    nids: list[int]
    inodes: list[Inode | None]


class Walk:
    """One walk over an image, or over the part below a directory."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._left = len(image.data)
        self._names = 0
        self._expansion = EXPANSION_FREE + EXPANSION * len(image.data)
        # By nid: what it is, or 0.  Only what is touched of an anonymous map takes memory.
        self._met = mmap.mmap(-1, len(image.data) // SLOT)

    def directories(self, nid: int, inode: Inode, path_length: int | None = None) -> Iterator[Listing]:
        """Yield the directory and all below it, each after its parent.

        ``path_length`` is that of the directory's path if paths will be written out, which is counted then.  Who only
        collects must be able to read whatever the writer makes, or a deep tree would keep garbage from collection.
        """
        counts_paths = path_length is not None
        met = self._met
        met[nid] = _DIRECTORY
        above = nid if nid == self._image.root_nid else None  # What .. of the first one is, where that is known.
        pending: list[tuple[int, Inode, int | None, int]] = [(nid, inode, above, path_length or 0)]
        self._claim(inode.claim, inode)
        read = self._image.inode
        while pending:
            nid, inode, parent, path_length = pending.pop()
            names, nids, types = self._entries(nid, inode, parent)
            if counts_paths:
                self.expand(path_length * len(names), inode.offset)
            if max(nids, default=0) >= len(met):
                read(max(nids))  # which says that it is not there
            inodes: list[Inode | None] = []
            claims = 0
            for name, child, file_type in zip(names, nids, types, strict=True):
                if met[child]:
                    if met[child] == _DIRECTORY:
                        malformed(f"a directory with two names, '{shown(name)}' the second", inode.offset)
                    inodes.append(None)
                    continue
                found = read(child)
                kind = found.mode & TYPE_MASK
                if FILE_TYPES[kind] != file_type:
                    malformed(f"'{shown(name)}' has another type than its inode", inode.offset)
                claims += found.claim
                met[child] = _OTHER
                if kind == stat.S_IFDIR:
                    met[child] = _DIRECTORY
                    pending.append((child, found, nid, path_length + len(name) + 1))
                inodes.append(found)
            self._claim(claims, inode)
            yield Listing(nid, names, nids, inodes)

    def _entries(self, nid: int, inode: Inode, parent: int | None) -> Entries:
        """Read a directory, count its names, and take away ``.`` and ``..``, which lead where they should."""
        names, nids, types = found = self._image.entries(inode)
        for dots, expected in ((b".", nid), (b"..", parent)):
            place = bisect_left(names, dots)
            if place < len(names) and names[place] == dots:
                if expected not in (None, nids[place]):
                    malformed(f"{dots.decode()} is not the directory it should be", inode.offset)
                del names[place], nids[place], types[place]
        self._names += len(names)
        count_names(self._names)
        return found

    def _claim(self, length: int, inode: Inode) -> None:
        self._left -= length
        if self._left < 0:
            malformed("inodes with more attributes and data than there are bytes", inode.offset)

    def expand(self, length: int, offset: int) -> None:
        """Count bytes that will be written out again for each file."""
        self._expansion -= length
        if self._expansion < 0:
            malformed("paths and attributes that are endless when written out", offset)
