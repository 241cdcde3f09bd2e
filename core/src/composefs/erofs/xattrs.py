"""Extended attributes in an image: escaped names, the shared table, references and inline entries.

An attribute that occurs in two or more inodes is stored once, in a table, and inodes refer to it; the others stand
behind their inode.  A tree has few distinct sets of attributes and many nodes, so everything is computed once for each
`AttributeSet`.  Only external files differ one by one, by the two attributes that point overlayfs to their bytes; they
keep the set of the attributes they came with, and the two are put in at the places that the set keeps for them.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol

from composefs.digest import Algorithm
from composefs.erofs.layout import (
    MAX_XATTR_REFERENCES,
    XATTR_ENTRY,
    XATTR_FILTER_SEED,
    XATTR_HEADER,
    XATTR_INDEX_TRUSTED,
    XATTR_PREFIXES,
)
from composefs.erofs.unfit import Unfit
from composefs.erofs.xxhash import xxh32
from composefs.tree import C_MAX_XATTRS, MAX_NAME, MAX_XATTR_VALUE, c_xattrs_size

__all__ = [
    "ESCAPED",
    "MAX_AREA",
    "METACOPY",
    "METACOPY_HEAD_SIZE",
    "OVERLAY",
    "REDIRECT",
    "AttributeSet",
    "AttributeSets",
    "escape_overlay",
    "metacopy_head",
]

OVERLAY = b"trusted.overlay."
ESCAPED = OVERLAY + b"overlay."
"""How an attribute begins that overlayfs is to show as one of OVERLAY, instead of obeying it."""
METACOPY = OVERLAY + b"metacopy"
REDIRECT = OVERLAY + b"redirect"
METACOPY_HEAD_SIZE = 4
ACL_NAMES = frozenset((b"system.posix_acl_access", b"system.posix_acl_default"))

C_MAX_REFERENCES = 128
"""libcomposefs' limit of references in an inode, beyond which entries go inline."""

MAX_AREA = XATTR_HEADER.size + 4 * (65535 - 1)
"""Bytes of header, references and entries; an inode's attribute count has 16 bits."""

Pair = tuple[bytes, bytes]
"""A full name, escaped, and a value."""


def escape_overlay(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the attributes with ``trusted.overlay.X`` renamed, so that overlayfs shows instead of obeying them."""
    return {
        ESCAPED + name[len(OVERLAY) :] if name.startswith(OVERLAY) else name: value for name, value in xattrs.items()
    }


def metacopy_head(algorithm: Algorithm) -> bytes:
    """Return what comes before the digest in METACOPY: struct ovl_metacopy of fs/overlayfs/overlayfs.h."""
    return bytes((0, METACOPY_HEAD_SIZE + algorithm.size, 0, algorithm.number))  # version, length, flags, algorithm


class AttributeSet:
    """The attributes of one or more inodes.

    ``pairs`` is in on-disk order, ``uses`` counts the inodes.  ``source`` is what the nodes have, kept
    because sets are found by its id().

    `AttributeSets.share` divides it: ``offsets`` are the places in the table of what is stored by reference;
    ``before``, ``between`` and ``after`` are the inline entries, cut where an external file's metacopy and redirect go.
    ``size`` and ``external_size`` are the bytes of the whole area, without and with metacopy (without redirect).

    `AttributeSets.locate` writes it: ``area`` is the whole area, ``external_start`` what comes before an external
    file's digest; `AttributeSets.pointers` is what comes between that and its redirect, and behind it.
    """

    __slots__ = (
        "after",
        "area",
        "before",
        "between",
        "external_size",
        "external_start",
        "offsets",
        "pairs",
        "pointers",
        "size",
        "source",
        "uses",
    )

    def __init__(self, pairs: list[Pair], source: Mapping[bytes, bytes]) -> None:
        self.pairs = pairs
        self.source = source
        self.uses = 0
        self.offsets: list[int] = []
        self.before = self.between = self.after = b""
        self.size = self.external_size = 0
        self.area = self.external_start = b""
        self.pointers: dict[int, tuple[bytes, bytes]] = {}


class External(Protocol):
    """An external file's inode: its own set, and digest and redirect, without slash, that it does not hold yet."""

    xattrs: AttributeSet
    digest: bytes | None
    redirect: bytes | None


class AttributeSets:
    """All attribute sets of an image that is being written."""

    def __init__(self, algorithm: Algorithm, *, version: int, c_rules: bool) -> None:
        self._version = version
        self._c_rules = c_rules
        self._names: dict[bytes, tuple[int, bytes, int]] = {}
        self._sets: dict[object, AttributeSet] = {}
        self._offsets: dict[Pair, int] = {}
        self._metacopy_head = metacopy_head(algorithm)
        entry = self._entry(METACOPY, self._metacopy_head + bytes(algorithm.size))
        self.metacopy_start = entry[: -algorithm.size]
        self.metacopy_size = len(entry)
        self.redirect_start = REDIRECT.removeprefix(b"trusted.") + b"/"
        self.table = b""

    @property
    def has_acl(self) -> bool:
        """Whether some inode has a POSIX access control list."""
        return any(name in ACL_NAMES for found in self._sets.values() for name, _ in found.pairs)

    @property
    def count(self) -> int:
        """The attributes of all sets."""
        return sum(len(found.pairs) for found in self._sets.values())

    def of(self, xattrs: Mapping[bytes, bytes], extra: Mapping[bytes, bytes] | None = None) -> AttributeSet:
        """Return the set of a node's attributes, escaped, with those that the image adds; this counts one use of it."""
        key = id(xattrs) if extra is None else (id(xattrs), *extra.items())
        found = self._sets.get(key)
        if found is None:
            self._check(xattrs)
            pairs = escape_overlay(xattrs)
            if extra is not None:
                pairs |= extra
            found = self._sets[key] = AttributeSet(sorted(pairs.items()), xattrs)
        found.uses += 1
        return found

    def share(self, externals: Sequence[External]) -> None:
        """Decide what is shared, make the table, and divide all sets.

        External files whose metacopy or redirect is missing or shared (duplicates of a file) get a set that holds them.
        """
        counts: dict[Pair, int] = {}
        for found in self._sets.values():
            for pair in found.pairs:
                counts[pair] = counts.get(pair, 0) + found.uses
        digests = _repeated([inode.digest for inode in externals])
        redirects = _repeated([inode.redirect for inode in externals])
        counts.update({(METACOPY, self._metacopy(digest)): count for digest, count in digests.items()})
        counts.update({(REDIRECT, b"/" + path): count for path, count in redirects.items() if path is not None})
        shared = [pair for pair, count in counts.items() if count > 1]
        if self._version == 2:
            shared.sort(key=lambda pair: (*self._name(pair[0])[:2], pair[1]))
        else:
            shared.sort(key=lambda pair: (pair[0], len(pair[1]), pair[1]), reverse=True)
        entries = [self._entry(*pair) for pair in shared]
        self._offsets = dict(zip(shared, accumulate(map(len, entries), initial=0), strict=False))
        self.table = b"".join(entries)

        for inode in externals:
            digest, redirect = inode.digest, inode.redirect
            if digest is None or redirect is None or digest in digests or redirect in redirects:
                inode.xattrs = self._with_pointers(inode.xattrs, digest, redirect)
                inode.digest = inode.redirect = None
        for found in self._sets.values():
            self._divide(found)

    def locate(self, base: int) -> None:
        """Write the areas of all sets, once it is known that references count from ``base`` bytes before the table."""
        for found in self._sets.values():
            references = struct.pack(f"<{len(found.offsets)}I", *[(base + offset) // 4 for offset in found.offsets])
            start = references + found.before
            names = [name for name, _ in found.pairs]
            head = XATTR_HEADER.pack(self._filter(names), len(found.offsets))
            found.area = head + start + found.between + found.after if names else b""
            head = XATTR_HEADER.pack(self._filter([*names, METACOPY, REDIRECT]), len(found.offsets))
            found.external_start = head + start + self.metacopy_start

    def pointers(self, found: AttributeSet, redirect_size: int) -> tuple[bytes, bytes]:
        """Return what comes before a redirect of so many bytes, from the digest on, and what comes behind it."""
        pointers = found.pointers.get(redirect_size)
        if pointers is None:
            start = self.redirect_start
            head = XATTR_ENTRY.pack(len(start) - 1, XATTR_INDEX_TRUSTED, 1 + redirect_size)
            padding = bytes(-(len(start) + redirect_size) % 4)
            pointers = found.pointers[redirect_size] = found.between + head + start, padding + found.after
        return pointers

    def _with_pointers(self, base: AttributeSet, digest: bytes | None, redirect: bytes | None) -> AttributeSet:
        key = (id(base), digest, redirect)
        found = self._sets.get(key)
        if found is None:
            pointers = [(METACOPY, self._metacopy(digest))]
            if redirect is not None:
                pointers.append((REDIRECT, b"/" + redirect))
            pairs = pointers + base.pairs
            if self._version != 2:
                pairs.sort()
            found = self._sets[key] = AttributeSet(pairs, base.source)
        return found

    def _metacopy(self, digest: bytes | None) -> bytes:
        return b"" if digest is None else self._metacopy_head + digest

    def _divide(self, found: AttributeSet) -> None:
        limit = C_MAX_REFERENCES if self._c_rules else MAX_XATTR_REFERENCES + 1
        offsets: list[int] = []
        before: list[bytes] = []
        between: list[bytes] = []
        after: list[bytes] = []
        for name, value in found.pairs:
            offset = self._offsets.get((name, value))
            if offset is not None and len(offsets) < limit:
                offsets.append(offset)
            elif self._version == 2 or name > REDIRECT:
                after.append(self._entry(name, value))
            else:
                (before if name < METACOPY else between).append(self._entry(name, value))
        if len(offsets) > MAX_XATTR_REFERENCES:
            message = f"a file has more than {MAX_XATTR_REFERENCES} extended attributes that others have too"
            raise Unfit(found.source, message, hint="fewer ones fit")
        found.offsets = offsets
        found.before, found.between, found.after = b"".join(before), b"".join(between), b"".join(after)
        size = XATTR_HEADER.size + 4 * len(offsets) + len(found.before) + len(found.between) + len(found.after)
        found.size = size if found.pairs else 0
        found.external_size = size + self.metacopy_size

    def _check(self, xattrs: Mapping[bytes, bytes]) -> None:
        for name, value in xattrs.items():
            if not 1 <= len(name) <= MAX_NAME:
                raise Unfit(xattrs, f"an extended attribute's name has not 1 to {MAX_NAME} bytes")
            if len(value) > MAX_XATTR_VALUE:
                told = name.decode(errors="backslashreplace")
                message = f"the extended attribute {told} has {len(value)} bytes, more than {MAX_XATTR_VALUE}"
                raise Unfit(xattrs, message, hint="leave it out, or make it shorter")
        if self._c_rules and (size := c_xattrs_size(xattrs)) > C_MAX_XATTRS:
            message = f"a file's extended attributes take {size} bytes, more than {C_MAX_XATTRS}"
            raise Unfit(xattrs, message, hint="fewer or shorter ones fit")

    def _name(self, name: bytes) -> tuple[int, bytes, int]:
        """Return the prefix index, the rest of the name, and the bit of it in the filter."""
        known = self._names.get(name)
        if known is None:
            prefix, index = next((each for each in XATTR_PREFIXES if name.startswith(each[0])), (b"", 0))
            suffix = name.removeprefix(prefix)
            bit = 1 << (xxh32(suffix, XATTR_FILTER_SEED + index) & 31)
            known = self._names[name] = index, suffix, bit
        return known

    def _entry(self, name: bytes, value: bytes) -> bytes:
        index, suffix, _ = self._name(name)
        entry = XATTR_ENTRY.pack(len(suffix), index, len(value)) + suffix + value
        return entry + bytes(-len(entry) % 4)

    def _filter(self, names: list[bytes]) -> int:
        """Return the filter of a set of names: a bit is cleared for each, so that most look-ups end there."""
        bits = 0
        for name in names:
            bits |= self._name(name)[2]
        return bits ^ 0xFFFFFFFF


def _repeated(values: list[bytes | None]) -> dict[bytes | None, int]:
    """Return the values that occur more than once, with their numbers."""
    return {value: count for value, count in Counter(values).items() if count > 1}
