"""Extended attributes of an image: shared and inline entries, and what they mean to overlayfs.

The image writer escapes the user's ``trusted.overlay.X`` and adds attributes of its own (`composefs.erofs.overlay`);
here that is undone.  Who reads chooses between two programs' ways, which differ in what they take for added:

===================================  ====================  ========================================
stored attribute                     libcomposefs          composefs-rs
===================================  ====================  ========================================
trusted.overlay.overlay.whiteout     a whiteout, if on an empty file (composefs-rs: formats 0 and 1)
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

from composefs.erofs.layout import (
    MAX_ENTRIES,
    WHITEOUT_VERSIONS,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_INDEX_TRUSTED,
    XATTR_PREFIXES,
)
from composefs.erofs.overlay import OPAQUE, WHITEOUT, WHITEOUT_MARK, WHITEOUT_PARENT
from composefs.erofs.reader.image import Image, Inode, malformed
from composefs.erofs.xattrs import ESCAPED, METACOPY, OVERLAY, REDIRECT
from composefs.errors import TooLargeError
from composefs.tree import MAX_NAME, NO_XATTRS

__all__ = ["AttributeReader", "Attributes", "SharedAttributes"]

ADDED = frozenset({**WHITEOUT, **WHITEOUT_PARENT}) - {WHITEOUT_MARK}
ADDED_OPAQUE = frozenset(OPAQUE)

PREFIXES = {number: prefix for prefix, number in XATTR_PREFIXES} | {0: b"", 5: b"lustre."}
"""What the index of an entry stands for; libcomposefs and composefs-rs never write 5."""

Pairs = list[tuple[bytes, bytes]]


class Attributes(NamedTuple):
    """What an inode's attributes say, apart from the way to an object.

    ``xattrs`` is what the user gave; ``whiteout`` is the value of the mark by which an empty file stands for a
    whiteout, while any other file just has one attribute more; ``shared`` are the bytes that come from the shared
    table.
    """

    xattrs: Mapping[bytes, bytes]
    whiteout: bytes | None = None
    shared: int = 0


Found = tuple[Attributes, bytes | None, bytes | None]
"""Attributes with the values of metacopy and redirect, where these are there."""

NONE: Found = Attributes(NO_XATTRS), None, None

POINTER_HEAD = XATTR_ENTRY.size + len(METACOPY.removeprefix(b"trusted."))
"""Bytes before the value of a metacopy or redirect entry: they have names of the same length."""


class SharedAttributes:
    """The table of shared attributes.  Entries are read once, and may not overlap, or memory would have no bound."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._left = len(image.data)
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
                self._left -= end - start
                if self._left < 0:
                    malformed("shared attributes overlap", start)
                name, value, _ = self.entry(self._image.data, start, end, start)
                pair = self._entries[reference] = name, value
            pairs.append(pair)
        return pairs

    def entry(self, data: bytes | mmap.mmap, start: int, end: int, offset: int) -> tuple[bytes, bytes, int]:
        """Read an entry at ``start``: full name, value, and where the next one starts.

        It must end before ``end``, as the head of four bytes surely does; ``offset`` is for the error.
        """
        name_start = start + XATTR_ENTRY.size
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
            # The writer makes the longest ones longer when it escapes them.
            longest = MAX_NAME + len(ESCAPED) - len(OVERLAY) if name.startswith(ESCAPED) else MAX_NAME
            if not 1 <= len(name) <= longest:
                malformed(f"the name of an extended attribute has {len(name)} bytes", offset)
        return name, data[value_start:value_end], (value_end + 3) & ~3


class AttributeReader:
    """Reads the attributes of regular files, or of all others."""

    def __init__(self, image: Image, shared: SharedAttributes, *, regular: bool, c: bool) -> None:
        self._image = image
        self._table = shared
        rewritten = c or image.version in WHITEOUT_VERSIONS
        self._regular = regular
        self._whiteouts = regular and rewritten
        self._added: frozenset[bytes] = frozenset()
        if rewritten:
            self._added = ADDED if c else ADDED | ADDED_OPAQUE
        self._decoded = 0
        self._areas: dict[bytes, Found] = {}
        self._shapes: dict[bytes, Attributes] = {}
        self._sets: dict[tuple[bytes, ...], Found] = {}

    def of(self, inode: Inode) -> Found:
        """Return the attributes of an inode."""
        size = inode.attributes_size
        if not size:
            return NONE
        offset = inode.attributes
        area = self._image.data[offset : offset + size]
        found = self._areas.get(area)
        if found is not None:
            return found

        # An external file has a digest of its own, and so an area of its own.  But its *shape*, which is all but the
        # values of the two entries at the beginning that point to the object, is that of thousands; as the lengths
        # are part of it, a shape that was parsed once need not be parsed again.  A third of the time of all reading.
        first = XATTR_HEADER.size + 4 * area[4]
        metacopy = first + POINTER_HEAD
        shape = None
        if self._regular and metacopy < size:
            redirect_entry = metacopy + area[first + 2]
            redirect = redirect_entry + POINTER_HEAD
            if redirect < size:
                end = redirect + area[redirect_entry + 2]
                if end <= size:
                    shape = area[4:metacopy] + area[redirect_entry:redirect] + area[end:]
                    known = self._shapes.get(shape)
                    if known is not None:
                        return known, area[metacopy:redirect_entry], area[redirect:end]

        found = self._parse(area, first, offset)
        if found[1] is None and found[2] is None:
            self._areas[area] = found
        elif (
            shape is not None
            and _points(area[first:metacopy], METACOPY)
            and _points(area[redirect_entry:redirect], REDIRECT)
        ):
            self._shapes[shape] = found[0]
        return found

    def _parse(self, area: bytes, first: int, offset: int) -> Found:
        size = len(area)
        if first > size:
            malformed("more references to shared attributes than there is room for", offset)
        metacopy = redirect = None
        key = [area[XATTR_HEADER.size : first]]
        start = first
        while start < size:
            name, value, start = self._table.entry(area, start, size, offset)
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
        if not self._regular:
            return found
        attributes, shared_metacopy, shared_redirect = found
        if None not in (metacopy, shared_metacopy) or None not in (redirect, shared_redirect):
            malformed("an extended attribute occurs twice", offset)
        return (
            attributes,
            shared_metacopy if metacopy is None else metacopy,
            shared_redirect if redirect is None else redirect,
        )

    def _decode(self, key: tuple[bytes, ...], offset: int) -> Found:
        """Decode inline attributes and, in the first element of the key, references to shared ones."""
        shared = self._table.pairs(key[0], offset)
        pairs = [*zip(key[1::2], key[2::2], strict=True), *shared]
        self._decoded += len(pairs)
        if self._decoded > MAX_ENTRIES:
            raise TooLargeError(f"an image with more than {MAX_ENTRIES} different extended attributes")
        if len(dict(pairs)) != len(pairs):
            malformed("an extended attribute occurs twice", offset)
        xattrs: dict[bytes, bytes] = {}
        metacopy = redirect = None
        whiteout = None
        for name, value in pairs:
            if name == METACOPY:
                metacopy = value
            elif name == REDIRECT:
                redirect = value
            elif name == WHITEOUT_MARK and self._whiteouts:
                whiteout = value
            elif name in self._added:
                pass
            elif name.startswith(ESCAPED):
                xattrs[OVERLAY + name[len(ESCAPED) :]] = value
            elif not name.startswith(OVERLAY):
                xattrs[name] = value
        size = sum([len(name) + len(value) for name, value in shared])
        return Attributes(xattrs or NO_XATTRS, whiteout, size), metacopy, redirect


def _points(head: bytes, name: bytes) -> bool:
    """Whether the head of an entry is that of metacopy or redirect, its value short enough to count with one byte.

    A metacopy of 36 or 68 bytes, a multiple of four, has its end where the next entry starts.
    """
    suffix = name.removeprefix(b"trusted.")
    padded = name == METACOPY and head[2] % 4
    return not padded and head == XATTR_ENTRY.pack(len(suffix), XATTR_INDEX_TRUSTED, head[2]) + suffix
