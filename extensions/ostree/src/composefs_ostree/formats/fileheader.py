"""File objects: the header of a ``.filez``, and the different header that a file's id is made of.

=======================  ==============================================================================================
``.filez``               big-endian u32 size of Z, four zero bytes, Z, content as a raw deflate stream
Z                        ``(tuuuusa(ayay))``: content size, uid, gid, mode, rdev 0, symlink target, extended attributes
file id                  SHA-256 of big-endian u32 size of H, four zero bytes, H, content
H                        ``(uuuusa(ayay))``: Z without the content size
=======================  ==============================================================================================

Numbers are big-endian.  A symlink has size 0 and nothing behind Z; an empty file has an empty deflate stream.  There
are only regular files and symlinks.  A commit's stream keeps the 8-byte prefix and Z, together called *head* in this
package.

Source: ostree-core.c of libostree (``_ostree_zlib_file_header_new`` and ``_ostree_file_header_new``).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable
from typing import NamedTuple

from composefs_ext.errors import FormatError
from composefs_ostree.formats.gvariant import offset_size, pack_offsets
from composefs_ostree.formats.objects import MAX_MODE, Xattrs, parse_xattrs

__all__ = [
    "PREFIX_SIZE",
    "FileHead",
    "checksum_header",
    "content_size",
    "content_sizes",
    "head_size",
    "make_head",
    "parse_head",
    "regular_head",
    "symlink_head",
    "with_size",
]

PREFIX_SIZE = 8
MAX_HEAD = 1 << 20
"""Bytes of prefix and Z; the format has no bound, a file system's extended attributes stay far below."""

_SMALLEST_Z = 8 + 16 + 1 + 1
_MAX_TARGET = 4095


def content_size(head: bytes) -> int:
    """Return the content's size, without looking at the rest of the head."""
    return int.from_bytes(head[PREFIX_SIZE : PREFIX_SIZE + 8], "big")


def content_sizes(heads: Iterable[bytes]) -> list[int]:
    """Return what :func:`content_size` does of many heads."""
    return [int.from_bytes(head[PREFIX_SIZE : PREFIX_SIZE + 8], "big") for head in heads]


class FileHead(NamedTuple):
    """What a head says: size of the content, owner, full ``st_mode``, symlink target (b"" for files), attributes."""

    size: int
    uid: int
    gid: int
    mode: int
    target: bytes
    xattrs: Xattrs

    @property
    def is_symlink(self) -> bool:
        """A symlink has no content; everything else is a regular file."""
        return stat.S_ISLNK(self.mode)


def head_size(start: bytes) -> int:
    """Return how long the head is, from the first 8 bytes of a ``.filez``; raise FormatError if that is impossible."""
    if len(start) < PREFIX_SIZE:
        raise FormatError(f"malformed file header: {len(start)} bytes")
    size, padding = struct.unpack_from(">II", start)
    if padding or not _SMALLEST_Z <= size <= MAX_HEAD - PREFIX_SIZE:
        raise FormatError(f"malformed file header: {size} bytes, padding {padding}")
    return PREFIX_SIZE + int(size)


def make_head(size: int, uid: int, gid: int, mode: int, target: bytes, xattrs: bytes) -> bytes:
    """Serialise a head; ``xattrs`` are serialised already.  Whether it makes sense is for ``parse_head`` to tell."""
    body = struct.pack(">QIIII", size, uid, gid, mode, 0) + target + b"\0"
    offset = pack_offsets(len(body) + len(xattrs), [len(body)])
    z_size = len(body) + len(xattrs) + len(offset)
    return b"%b\0\0\0\0%b%b%b" % (z_size.to_bytes(4, "big"), body, xattrs, offset)


def regular_head(uid: int, gid: int, mode: int, xattrs: bytes) -> tuple[bytes, bytes]:
    """Return the head of an empty file, and what the id of a file with such a head hashes first; raise FormatError.

    Files have few heads apart from sizes, and making one takes as long as hashing 2 kB: keep it, for :func:`with_size`.
    """
    return _checked(make_head(0, uid, gid, mode, b"", xattrs))


def symlink_head(uid: int, gid: int, mode: int, target: bytes, xattrs: bytes) -> tuple[bytes, bytes]:
    """Return the head of a symlink, and what its id hashes; raise FormatError."""
    return _checked(make_head(0, uid, gid, mode, target, xattrs))


def _checked(head: bytes) -> tuple[bytes, bytes]:
    parse_head(head)
    return head, checksum_header(head)


def with_size(head: bytes, size: int) -> bytes:
    """Return a head with another size of the content."""
    return b"%b%b%b" % (head[:8], size.to_bytes(8, "big"), head[16:])


def checksum_header(head: bytes) -> bytes:
    """Return what a file id hashes before the content, of a head that `parse_head` takes.

    All of Z but its size and its last member's offset appears unchanged in H: both begin with alignment 8 or 4 and
    have members of alignment 1 from the target on.  So H is cut out of Z, not serialised again, which would cost more
    than the hash.
    """
    width = offset_size(len(head) - PREFIX_SIZE)
    tail = head[16:-width]
    offset = pack_offsets(len(tail), [int.from_bytes(head[-width:], "little") - 8])
    return b"%b\0\0\0\0%b%b" % ((len(tail) + len(offset)).to_bytes(4, "big"), tail, offset)


def parse_head(head: bytes) -> FileHead:
    """Read a head; raise FormatError unless it is in normal form and describes a regular file or a symlink."""
    if len(head) != head_size(head):
        raise FormatError("malformed file header: its length is not that of its object")
    z_size = len(head) - PREFIX_SIZE
    width = offset_size(z_size)
    body = len(head) - width
    end = PREFIX_SIZE + int.from_bytes(head[body:], "little")
    size, uid, gid, mode, rdev = struct.unpack_from(">QIIII", head, PREFIX_SIZE)
    target = head[32 : end - 1]
    if not 32 < end <= body or head[end - 1] or b"\0" in target:
        raise FormatError("malformed file header: the symlink target does not end at its only NUL")
    if width > 1 and z_size - width + (width >> 1) < 1 << (4 * width):
        raise FormatError("malformed file header: offset wider than needed")
    is_symlink = stat.S_ISLNK(mode)
    if not (is_symlink or stat.S_ISREG(mode)) or mode > MAX_MODE:
        raise FormatError(f"malformed file header: {mode:o} is not the mode of a file or symlink")
    if rdev:
        raise FormatError(f"malformed file header: device number {rdev} on something that is no device")
    if is_symlink:
        if not target or len(target) > _MAX_TARGET or size:
            raise FormatError(f"malformed file header: symlink target of {len(target)} bytes, content of {size}")
    elif target:
        raise FormatError("malformed file header: a regular file has a symlink target")
    if size >= 1 << 63:
        raise FormatError(f"malformed file header: content of {size} bytes")
    return FileHead(size, uid, gid, mode, target, parse_xattrs(head[end:body], "file header"))
