"""Extended attributes of an image: shared and inline entries, and what they mean to overlayfs.

The image writer escapes the user's ``trusted.overlay.X`` and adds attributes of its own (`composefs.erofs.overlay`);
here that is undone.  Who reads chooses between two programs' ways, which differ in what they take for added:

===================================  ====================  ========================================
stored attribute                     libcomposefs          composefs-rs
===================================  ====================  ========================================
trusted.overlay.overlay.whiteout     a whiteout, if on a regular file (composefs-rs: formats 0 and 1)
… .whiteouts, user.overlay.whiteout  dropped               dropped in formats 0 and 1
user.overlay.whiteouts
trusted.overlay.overlay.opaque,      kept                  dropped in formats 0 and 1
user.overlay.opaque
trusted.overlay.overlay.X            trusted.overlay.X     trusted.overlay.X
trusted.overlay.X                    dropped               dropped
===================================  ====================  ========================================

The files of a tree have few distinct sets of attributes apart from their digests, so each is decoded once, and equal
sets are one mapping, as `composefs.tree` wants it.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from typing import NamedTuple

from composefs.erofs.layout import XATTR_ENTRY, XATTR_HEADER, XATTR_PREFIXES
from composefs.erofs.reader.image import Image, Inode, malformed
from composefs.erofs.xattrs import METACOPY, OVERLAY, REDIRECT
from composefs.tree import MAX_NAME, NO_XATTRS

__all__ = ["WRITES_WHITEOUTS", "AttributeReader", "Attributes", "SharedAttributes"]

ESCAPED = OVERLAY + b"overlay."
WHITEOUT = ESCAPED + b"whiteout"
ADDED = frozenset((ESCAPED + b"whiteouts", b"user.overlay.whiteout", b"user.overlay.whiteouts"))
ADDED_OPAQUE = frozenset((ESCAPED + b"opaque", b"user.overlay.opaque"))

WRITES_WHITEOUTS = (0, 1)
"""Formats whose writer rewrites whiteouts."""

PREFIXES = {number: prefix for prefix, number in XATTR_PREFIXES} | {0: b"", 5: b"lustre."}
"""What the index of an entry stands for; libcomposefs and composefs-rs never write 5."""

Pairs = list[tuple[bytes, bytes]]


class Attributes(NamedTuple):
    """The attributes of an inode.

    ``xattrs`` is what the user gave.  ``metacopy`` and ``redirect`` are the values that point to an object, None where
    they are missing; ``whiteout`` is whether a regular file stands for a whiteout.  ``shared`` are the bytes that come
    from the shared table.
    """

    xattrs: Mapping[bytes, bytes]
    metacopy: bytes | None = None
    redirect: bytes | None = None
    whiteout: bool = False
    shared: int = 0


NONE = Attributes(NO_XATTRS)


class SharedAttributes:
    """The table of shared attributes, whose entries are read once."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._entries: dict[int, tuple[bytes, bytes]] = {}
        self._names: dict[tuple[int, bytes], bytes] = {}

    def pairs(self, references: bytes, offset: int) -> Pairs:
        """Return the (name, value) pairs of an inode's references; ``offset`` is where these stand."""
        pairs = []
        for (reference,) in struct.iter_unpack("<I", references):
            pair = self._entries.get(reference)
            if pair is None:
                start = self._image.xattr_start + 4 * reference
                if start + XATTR_ENTRY.size > len(self._image.data):
                    malformed("a reference to shared attributes beyond the end", offset)
                name_size, _, value_size = XATTR_ENTRY.unpack_from(self._image.data, start)
                end = start + XATTR_ENTRY.size + name_size + value_size
                name, value, _ = self.entry(self._image.data, start, end, start)
                pair = self._entries[reference] = name, value
            pairs.append(pair)
        return pairs

    def entry(self, data: bytes | mmap.mmap, start: int, end: int, offset: int) -> tuple[bytes, bytes, int]:
        """Read an entry at ``start``: full name, value, and where the next one starts.

        It must end before ``end``; ``offset`` is for the error.
        """
        name_start = start + XATTR_ENTRY.size
        if name_start > end:
            malformed("an extended attribute is cut off", offset)
        name_size, index, value_size = XATTR_ENTRY.unpack_from(data, start)
        value_start = name_start + name_size
        value_end = value_start + value_size
        if value_end > min(end, len(data)):
            malformed("an extended attribute is cut off", offset)
        key = index, data[name_start:value_start]
        name = self._names.get(key)
        if name is None:
            if index not in PREFIXES:
                malformed(f"an extended attribute with the unknown prefix {index}", offset)
            name = self._names[key] = PREFIXES[index] + key[1]
            if not 1 <= len(name) <= MAX_NAME:
                malformed(f"the name of an extended attribute has {len(name)} bytes", offset)
        return name, data[value_start:value_end], (value_end + 3) & ~3


class AttributeReader:
    """Reads the attributes of regular files, or of all others."""

    def __init__(self, image: Image, shared: SharedAttributes, *, regular: bool, c: bool) -> None:
        self._image = image
        self._table = shared
        rewritten = c or image.version in WRITES_WHITEOUTS
        self._regular = regular
        self._whiteouts = regular and rewritten
        self._added: frozenset[bytes] = frozenset()
        if rewritten:
            self._added = ADDED if c else ADDED | ADDED_OPAQUE
        self._areas: dict[bytes, Attributes] = {}
        self._sets: dict[tuple[bytes, ...], Attributes] = {}

    def of(self, inode: Inode) -> Attributes:
        """Return the attributes of an inode."""
        size = inode.attributes_size
        if not size:
            return NONE
        offset = inode.attributes
        area = self._image.data[offset : offset + size]
        found = self._areas.get(area)
        if found is not None:
            return found
        # What is left are external files above all.  Each has a digest of its own, and so an area of its own, but the
        # user's attributes in it are those of many others.
        first = XATTR_HEADER.size + 4 * area[4]
        if first > size:
            malformed("more references to shared attributes than there is room for", offset)
        metacopy = redirect = None
        key = [area[XATTR_HEADER.size : first]]
        start = first
        entry = self._table.entry
        while start < size:
            name, value, start = entry(area, start, size, offset)
            if name == METACOPY and metacopy is None:
                metacopy = value
            elif name == REDIRECT and redirect is None:
                redirect = value
            else:
                key += name, value
        users = tuple(key)
        found = self._sets.get(users)
        if found is None:
            found = self._sets[users] = self._decode(users, offset)
        if metacopy is None and redirect is None:
            self._areas[area] = found
            return found
        if not self._regular:
            return found
        xattrs, metacopy_before, redirect_before, whiteout, shared = found
        if None not in (metacopy, metacopy_before) or None not in (redirect, redirect_before):
            malformed("an extended attribute occurs twice", offset)
        return Attributes(
            xattrs,
            metacopy_before if metacopy is None else metacopy,
            redirect_before if redirect is None else redirect,
            whiteout,
            shared,
        )

    def _decode(self, key: tuple[bytes, ...], offset: int) -> Attributes:
        """Decode inline attributes and, in the first element of the key, references to shared ones."""
        shared = self._table.pairs(key[0], offset)
        xattrs: dict[bytes, bytes] = {}
        metacopy = redirect = None
        whiteout = False
        pairs = [*zip(key[1::2], key[2::2], strict=True), *shared]
        if len(dict(pairs)) != len(pairs):
            malformed("an extended attribute occurs twice", offset)
        for name, value in pairs:
            if name == METACOPY and self._regular:
                metacopy = value
            elif name == REDIRECT and self._regular:
                redirect = value
            elif name == WHITEOUT and self._whiteouts:
                whiteout = True
            elif name in self._added:
                pass
            elif name.startswith(ESCAPED):
                xattrs[OVERLAY + name[len(ESCAPED) :]] = value
            elif not name.startswith(OVERLAY):
                xattrs[name] = value
        size = sum([len(name) + len(value) for name, value in shared])
        return Attributes(xattrs or NO_XATTRS, metacopy, redirect, whiteout, size)
