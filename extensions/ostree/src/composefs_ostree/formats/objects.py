"""The metadata objects of ostree: dirtrees, dirmetas and commits, read and checked, and written.

====================  =================================================================================
dirtree               ``(a(say)a(sayay))``: files (name, file id), directories (name, dirtree id, dirmeta id)
dirmeta               ``(uuua(ayay))``: uid, gid, mode (big-endian), extended attributes
commit                ``(a{sv}aya(say)sstayay)``: metadata, parent id, related objects, subject, body,
                      seconds since 1970 (big-endian), root dirtree id, root dirmeta id
====================  =================================================================================

The checks are libostree's and those that it leaves out although a tree cannot be built without them: names that are
empty, too long, out of order or given twice (two files, two directories, or one of each).

Dirtrees and dirmetas come in thousands, so they have readers of their own, several times faster than the generic
codec; all members have alignment 1, so there is no padding.
Source: ostree-core.h and ostree-repo-commit.c of libostree describe the types; the layout is GVariant's.
"""

from __future__ import annotations

import stat
import struct
from typing import Any, NamedTuple

from composefs_ext.errors import FormatError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import pack_array, pack_offsets
from composefs_ostree.formats.names import ID_SIZE

__all__ = [
    "COMMIT_TYPE",
    "MAX_DEPTH",
    "MAX_INODES",
    "MAX_MODE",
    "MAX_NAME",
    "MAX_XATTRS",
    "Commit",
    "Dirmeta",
    "Dirtree",
    "Xattrs",
    "make_commit",
    "make_dirmeta",
    "make_dirtree",
    "make_xattrs",
    "parse_commit",
    "parse_dirmeta",
    "parse_dirtree",
    "parse_xattrs",
]

MAX_MODE = 0o177777
"""Type and permissions; nothing has more bits."""
MAX_NAME = 255
MAX_XATTR_NAME = 255
MAX_XATTR_VALUE = 65536
MAX_XATTRS = 1 << 20
"""Bytes of all extended attributes of one file or directory, serialised."""

MAX_INODES = 10_000_000
MAX_DEPTH = 2000
"""Files and nested directories of one tree, which a few objects can stand for."""

COMMIT_TYPE = "(a{sv}aya(say)sstayay)"
_NO_NAMES = frozenset({b"", b".", b".."})

Xattrs = tuple[tuple[bytes, bytes], ...]
"""Extended attributes: names without ostree's trailing NUL, raw values; sorted by name."""


class Dirtree(NamedTuple):
    """A directory's entries; both lists sorted bytewise by name."""

    files: list[tuple[bytes, bytes]]
    """Name and file id."""
    directories: list[tuple[bytes, bytes, bytes]]
    """Name, dirtree id and dirmeta id."""


class Dirmeta(NamedTuple):
    """A directory's owner, full ``st_mode`` and extended attributes."""

    uid: int
    gid: int
    mode: int
    xattrs: Xattrs


class Commit(NamedTuple):
    """A commit; ids are raw bytes, ``parent`` is None for the first commit, ``timestamp`` is in seconds since 1970."""

    metadata: dict[str, gvariant.Variant]
    parent: bytes | None
    subject: str
    body: str
    timestamp: int
    root_tree: bytes
    root_meta: bytes


def _malformed(what: str, reason: str) -> FormatError:
    return FormatError(f"malformed {what}: {reason}")


def _elements(data: bytes, what: str) -> list[bytes]:
    """Split an array of elements of alignment 1 that vary in size; the offsets must be in normal form."""
    size = len(data)
    if not size:
        return []
    width = 1 if size <= 0xFF else 2 if size <= 0xFFFF else 4
    table = int.from_bytes(data[-width:], "little")
    if table >= size or (size - table) % width:
        raise _malformed(what, "offset table outside of its array")
    count = (size - table) // width
    if width > 1 and table + count * (width >> 1) < 1 << (4 * width):
        raise _malformed(what, "offsets wider than needed")
    if width == 1:
        ends: bytes | tuple[int, ...] = data[table:]
    else:
        ends = struct.unpack(f"<{count}{'H' if width == 2 else 'I'}", data[table:])
    elements = []
    start = 0
    for end in ends:
        # Ends in order, and the last one is the table itself, so no element can reach outside.
        if end < start:
            raise _malformed(what, "offsets out of order")
        elements.append(data[start:end])
        start = end
    return elements


def parse_dirtree(data: bytes) -> Dirtree:
    """Read a dirtree; raise FormatError for anything that cannot be a directory's listing in normal form."""
    size = len(data)
    width = gvariant.offset_size(size)
    body = size - width
    end = int.from_bytes(data[body:], "little")
    if width == 0 or end > body:
        raise _malformed("dirtree", "offset outside of the object")
    if width > 1 and body + (width >> 1) < 1 << (4 * width):
        raise _malformed("dirtree", "offsets wider than needed")
    # The hot loop of every walk: an update reads all directories, although few of them have changed.
    files = []
    for element in _elements(data[:end], "dirtree"):
        # name NUL id, then where the name ends; a name of up to 221 bytes leaves the element within 255.
        size = len(element)
        split = size - (ID_SIZE + 1)
        if size <= 0xFF:
            is_good = split > 0 and element[-1] == split
        else:
            split -= 1
            is_good = int.from_bytes(element[-2:], "little") == split
        if not is_good or element[split - 1]:
            raise _malformed("dirtree", "malformed file entry")
        if size == 0x100:
            raise _malformed("dirtree", "offsets wider than needed")
        files.append((element[: split - 1], element[split : split + ID_SIZE]))
    directories = []
    for element in _elements(data[end:body], "dirtree"):
        # name NUL dirtree-id dirmeta-id, then where the dirtree id ends and where the name ends.
        step = 1 if len(element) <= 0xFF else 2
        split = len(element) - 2 * ID_SIZE - 2 * step
        middle = split + ID_SIZE
        offsets = middle.to_bytes(step, "little") + split.to_bytes(step, "little") if 0 < split < 0xFF00 else b""
        if split < 1 or element[split - 1] or element[middle + ID_SIZE :] != offsets:
            raise _malformed("dirtree", "malformed directory entry")
        if 0xFF < len(element) <= 0x101:
            raise _malformed("dirtree", "offsets wider than needed")
        directories.append((element[: split - 1], element[split:middle], element[middle : middle + ID_SIZE]))
    _check_names([file[0] for file in files], [directory[0] for directory in directories])
    return Dirtree(files, directories)


def _check_names(files: list[bytes], directories: list[bytes]) -> None:
    """Raise FormatError unless both lists are sorted and all names can stand together in one directory."""
    names = files + directories
    if not names:
        return
    # The common case is decided by a few calls over all names at once; only then is the culprit looked for.
    joined = b"/".join(names)
    try:
        joined.decode()
        unique = set(names)
        good = (
            len(unique) == len(names)
            and joined.count(b"/") == len(names) - 1
            and 0 not in joined  # a number is looked for ten times faster than bytes
            and _NO_NAMES.isdisjoint(unique)
            and max(map(len, names)) <= MAX_NAME
            and files == sorted(files)
            and directories == sorted(directories)
        )
    except UnicodeDecodeError:
        good = False
    if not good:
        raise _malformed("dirtree", _bad_name(files, directories))


def _bad_name(files: list[bytes], directories: list[bytes]) -> str:
    """Return what is wrong with the first name that cannot stand where it does."""
    seen: set[bytes] = set()
    for part in (files, directories):
        previous = b""
        for name in part:
            shown = ascii(name[:80].decode("utf-8", "backslashreplace"))
            if name in _NO_NAMES or b"/" in name or b"\0" in name:
                return f"{shown} is not a file name"
            if len(name) > MAX_NAME:
                return f"the name {shown}… is longer than {MAX_NAME} bytes"
            if name in seen:
                return f"the name {shown} occurs twice"
            if name < previous:
                return f"the name {shown} is out of order"
            seen.add(name)
            previous = name
    return "a name is not UTF-8"


def parse_xattrs(data: bytes, what: str) -> Xattrs:
    """Read ``a(ayay)``: sorted, unique names that end at their only NUL.  ``what`` names the object in errors."""
    if len(data) > MAX_XATTRS:
        raise _malformed(what, f"more than {MAX_XATTRS} bytes of extended attributes")
    xattrs: list[tuple[bytes, bytes]] = []
    for element in _elements(data, what):
        width = gvariant.offset_size(len(element))
        body = len(element) - width
        end = int.from_bytes(element[body:], "little")
        if end > body or (width > 1 and body + (width >> 1) < 1 << (4 * width)):
            raise _malformed(what, "malformed extended attribute")
        name, value = element[:end], element[end:body]
        if len(name) < 2 or name.find(b"\0") != end - 1:
            raise _malformed(what, "the name of an extended attribute is empty or does not end at its only NUL")
        if end - 1 > MAX_XATTR_NAME or len(value) > MAX_XATTR_VALUE:
            raise _malformed(what, f"the extended attribute {name[:40]!a} is too large")
        if xattrs and name[:-1] <= xattrs[-1][0]:
            raise _malformed(what, f"the extended attribute {name[:40]!a} is out of order or occurs twice")
        xattrs.append((name[:-1], value))
    return tuple(xattrs)


def parse_dirmeta(data: bytes) -> Dirmeta:
    """Read a dirmeta; raise FormatError unless it describes a directory."""
    if len(data) < 12:
        raise _malformed("dirmeta", "shorter than 12 bytes")
    uid, gid, mode = struct.unpack_from(">III", data)
    if not stat.S_ISDIR(mode) or mode > MAX_MODE:
        raise _malformed("dirmeta", f"{mode:o} is not the mode of a directory")
    return Dirmeta(uid, gid, mode, parse_xattrs(data[12:], "dirmeta"))


def parse_commit(data: bytes) -> Commit:
    """Read a commit; raise FormatError unless it is in normal form and its ids have the right size."""
    metadata, parent, _related, subject, body, timestamp, root_tree, root_meta = gvariant.decode(COMMIT_TYPE, data)
    if len(parent) not in (0, ID_SIZE) or len(root_tree) != ID_SIZE or len(root_meta) != ID_SIZE:
        raise _malformed("commit", f"an object id does not have {ID_SIZE} bytes")
    if "" in metadata:
        raise _malformed("commit", "a metadata key is empty")
    # ostree stores the seconds big-endian whatever the byte order of the rest.
    seconds = int.from_bytes(timestamp.to_bytes(8, "little"), "big")
    return Commit(metadata, parent or None, subject, body, seconds, root_tree, root_meta)


def make_dirtree(listing: Dirtree) -> bytes:
    """Serialise a listing; whether it makes sense is for ``parse_dirtree`` to tell."""
    files = pack_array(
        [
            b"%b\0%b%b" % (name, file_id, pack_offsets(len(name) + 1 + ID_SIZE, [len(name) + 1]))
            for name, file_id in listing.files
        ]
    )
    directories = []
    for name, tree_id, meta_id in listing.directories:
        end = len(name) + 1
        ends = pack_offsets(end + 2 * ID_SIZE, [end + ID_SIZE, end])
        directories.append(b"%b\0%b%b%b" % (name, tree_id, meta_id, ends))
    below = pack_array(directories)
    return files + below + pack_offsets(len(files) + len(below), [len(files)])


def make_xattrs(xattrs: Xattrs) -> bytes:
    """Serialise extended attributes as ``a(ayay)``; ``parse_xattrs`` tells whether they make sense."""
    return pack_array(
        [
            b"%b\0%b%b" % (name, value, pack_offsets(len(name) + 1 + len(value), [len(name) + 1]))
            for name, value in xattrs
        ]
    )


def make_dirmeta(meta: Dirmeta) -> bytes:
    """Serialise a directory's metadata; ``parse_dirmeta`` tells whether it makes sense."""
    return struct.pack(">III", meta.uid, meta.gid, meta.mode) + make_xattrs(meta.xattrs)


def make_commit(commit: Commit) -> bytes:
    """Serialise a commit; its metadata keeps its order."""
    seconds = int.from_bytes(commit.timestamp.to_bytes(8, "big"), "little")
    related: list[Any] = []
    body = (commit.parent or b"", related, commit.subject, commit.body, seconds, commit.root_tree, commit.root_meta)
    return gvariant.encode(COMMIT_TYPE, (commit.metadata, *body))
