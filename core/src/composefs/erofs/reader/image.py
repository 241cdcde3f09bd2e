"""The structures of an EROFS image, read and checked: superblock, inodes, directory entries, inline data.

Nothing here trusts a number of the image.  Whatever does not fit is a FormatError with the offset of the structure
that says it.

Sources: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of the Linux kernel.
"""

from __future__ import annotations

import mmap
import os
import stat
from itertools import islice
from operator import le
from typing import NamedTuple, NoReturn

from composefs.erofs.layout import (
    BLOCK,
    BLOCK_BITS,
    CHUNK_BASED,
    COMPACT,
    COMPOSEFS_HEADER_VERSION,
    COMPOSEFS_MAGIC,
    DIRENT,
    EROFS_MAGIC,
    EXTENDED,
    FILE_TYPES,
    FLAT_INLINE,
    FLAT_PLAIN,
    HEADER,
    INODES_START,
    MAX_ENTRIES,
    MAX_IMAGE,
    MAX_VERSION,
    SLOT,
    SUPERBLOCK,
    SUPERBLOCK_START,
)
from composefs.errors import FormatError, TooLargeError
from composefs.linux.closing import Closing
from composefs.linux.maps import map_file
from composefs.systemerrors import Doing
from composefs.tree import MAX_NAME, TYPE_MASK

__all__ = ["Entries", "Image", "Inode", "count_names", "malformed"]

KNOWN_INCOMPATIBLE = 0x3F
"""Incompatible features whose inodes either look as always or have a layout of their own, which is refused there."""

LAYOUTS = frozenset((FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED))
MAX_FILE = 2**63 - 1
SLASH = ord("/")
NANOSECONDS = 10**9


class Inode(NamedTuple):
    """An inode's fields.  ``layout`` is as in `composefs.erofs.layout`; ``place`` a block, device or chunk format.

    ``attributes`` and ``attributes_size`` are where its attributes stand, offset and bytes; the tail is behind them.
    ``claim`` counts the bytes that belong to this inode alone: itself, its attributes and its data.
    """

    offset: int
    layout: int
    mode: int
    nlink: int
    uid: int
    gid: int
    mtime: tuple[int, int]
    size: int
    place: int
    attributes: int
    attributes_size: int
    claim: int


class Entries(NamedTuple):
    """A directory's entries in order: what is called ``.`` and ``..`` are among them."""

    names: list[bytes]
    nids: list[int]
    types: list[int]


def malformed(message: str, offset: int) -> NoReturn:
    """Raise FormatError for what stands at an offset of an image."""
    raise FormatError(f"malformed image: {message} (at byte {offset})", offset=offset)


def count_names(count: int) -> None:
    """Raise TooLargeError for more names than are read."""
    if count > MAX_ENTRIES:
        raise TooLargeError(f"an image with more than {MAX_ENTRIES} names")


class Image(Closing):
    """An image, given as its bytes or opened from a file.

    A file is mapped, not copied; as with any mapped file, whoever truncates it meanwhile kills the reader.  ``version``
    is the composefs format, or None for an image that is plain EROFS.  Raises FormatError for what is no image,
    TooLargeError for a file beyond 1 GiB.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        if len(data) < INODES_START:
            malformed(f"{len(data)} bytes are too few", len(data))
        self.data = data
        self.version = self._read_header()
        (
            magic, _, _, block_bits, _, self.root_nid, _, seconds, nanoseconds, blocks, meta_block, xattr_block,
            incompatible, directory_bits,
        ) = SUPERBLOCK.unpack_from(data, SUPERBLOCK_START)  # fmt: skip
        if magic != EROFS_MAGIC:
            malformed("no EROFS superblock", SUPERBLOCK_START)
        if block_bits != BLOCK_BITS or directory_bits:
            malformed(f"blocks of 2^{block_bits} bytes, only 2^{BLOCK_BITS} are supported", SUPERBLOCK_START + 12)
        if incompatible & ~KNOWN_INCOMPATIBLE:
            malformed(f"unknown features {incompatible:#x}", SUPERBLOCK_START + 80)
        if blocks * BLOCK > len(data):
            malformed(f"{blocks} blocks, but the file has {len(data)} bytes", SUPERBLOCK_START + 36)
        if nanoseconds >= NANOSECONDS:
            malformed("a time with too many nanoseconds", SUPERBLOCK_START + 32)
        self.meta_start = meta_block * BLOCK
        self.xattr_start = xattr_block * BLOCK
        self._build_time = seconds, nanoseconds

    @classmethod
    def open(cls, file: int) -> Image:
        """Open an image from a descriptor, which may be closed afterwards."""
        with Doing("reading the image"):
            info = os.fstat(file)
            if not stat.S_ISREG(info.st_mode):
                raise FormatError("an image is a regular file")
            if info.st_size > MAX_IMAGE:
                raise TooLargeError(f"an image of {info.st_size} bytes, more than {MAX_IMAGE}")
            return cls(map_file(file, info.st_size) if info.st_size else b"")

    def close(self) -> None:
        """Let go of the file."""
        if isinstance(self.data, mmap.mmap):
            self.data.close()

    def _read_header(self) -> int | None:
        magic, header_version, _, version = HEADER.unpack_from(self.data, 0)
        if magic != COMPOSEFS_MAGIC:
            return None
        if header_version != COMPOSEFS_HEADER_VERSION or version > MAX_VERSION:
            malformed(f"composefs header {header_version}, format {version} is unknown", 0)
        return int(version)

    def inode(self, nid: int) -> Inode:
        """Read an inode; its attributes and data are checked to lie in the image."""
        data = self.data
        end = len(data)
        offset = self.meta_start + nid * SLOT
        if offset + SLOT > end:
            malformed(f"there is no inode {nid}", min(offset, end))
        if data[offset] & 1:
            attributes = offset + EXTENDED.size
            if attributes > end:
                malformed("the inode is cut off", offset)
            form, count, mode, _, size, place, _, uid, gid, seconds, nanoseconds, nlink = EXTENDED.unpack_from(
                data, offset
            )
            mtime = seconds, nanoseconds
            if nanoseconds >= NANOSECONDS:
                malformed("a time with too many nanoseconds", offset)
            if size > MAX_FILE:
                malformed(f"a size of {size} bytes", offset)
        else:
            attributes = offset + COMPACT.size
            form, count, mode, nlink, size, _, place, _, uid, gid, _ = COMPACT.unpack_from(data, offset)
            mtime = self._build_time
        layout = form & ~1
        if layout not in LAYOUTS:
            malformed(f"a data layout that is not supported (format {form:#x})", offset)
        attributes_size = 8 + 4 * count if count else 0
        if attributes + attributes_size > end:
            malformed("extended attributes beyond the end", offset)
        if mode & TYPE_MASK not in FILE_TYPES:
            malformed(f"an unknown file type, mode {mode:o}", offset)
        claim = attributes + attributes_size - offset
        if layout != CHUNK_BASED:
            claim += size
        # What Inode() would do through one more function.
        return tuple.__new__(
            Inode, (offset, layout, mode, nlink, uid, gid, mtime, size, place, attributes, attributes_size, claim)
        )

    def pieces(self, inode: Inode) -> list[tuple[int, int]]:
        """Return where the data of an inode of flat layout is: (offset, bytes) of whole blocks and of the tail."""
        if inode.layout == CHUNK_BASED:
            malformed("data in chunks where there can be none", inode.offset)
        size = inode.size
        tail = size % BLOCK if inode.layout == FLAT_INLINE else 0
        pieces = []
        if size > tail:
            pieces.append((inode.place * BLOCK, size - tail))
        if tail:
            pieces.append((inode.attributes + inode.attributes_size, tail))
        for start, length in pieces:
            if start + length > len(self.data):
                malformed(f"{size} bytes of data beyond the end", inode.offset)
        return pieces

    def content(self, inode: Inode, limit: int) -> bytes:
        """Return the data of an inode, of at most ``limit`` bytes."""
        if inode.size > limit:
            malformed(f"{inode.size} bytes inside of the image, more than {limit}", inode.offset)
        if inode.layout == FLAT_INLINE and inode.size < BLOCK:  # Nearly all of them: a fifth of the time of `pieces`.
            start = inode.attributes + inode.attributes_size
            content = self.data[start : start + inode.size]
            if len(content) == inode.size:
                return content
        return b"".join([self.data[start : start + length] for start, length in self.pieces(inode)])

    def blocks(self, inode: Inode) -> list[tuple[int, int]]:
        """Return (offset, bytes) of each block of a directory."""
        return [
            (start, min(BLOCK, piece + length - start))
            for piece, length in self.pieces(inode)
            for start in range(piece, piece + length, BLOCK)
        ]

    def entries(self, inode: Inode) -> Entries:
        """Read a directory; names are checked, and that each is larger than the one before."""
        found = Entries([], [], [])
        for start, length in self.blocks(inode):
            names, nids, types = self.block(start, length)
            found.names.extend(names)
            found.nids.extend(nids)
            found.types.extend(types)
            count_names(len(found.names))
        names = found.names
        if any(map(le, islice(names, 1, None), names)):
            malformed("the names of a directory are not in order", inode.offset)
        return found

    def block(self, start: int, length: int) -> tuple[list[bytes], tuple[int, ...], tuple[int, ...]]:
        """Read one block of a directory: return its names, nids and types."""
        block = self.data[start : start + length]
        first = block[8] | block[9] << 8 if length >= DIRENT.size else 0
        if not DIRENT.size <= first <= length or first % DIRENT.size:
            malformed("a directory block without entries", start)
        # Columns instead of rows, in C instead of here: half of the time of reading a large directory.
        nids, offsets, types, _ = zip(*DIRENT.iter_unpack(block[:first]), strict=True)
        names = [block[begin:end] for begin, end in zip(offsets, (*offsets[1:], length), strict=True)]
        # If they do not go up without gaps from the first one to the end, they have another length together.
        if sum(map(len, names)) != length - first:
            malformed("the names in a directory block overlap", start)
        names[-1] = names[-1].partition(b"\0")[0]
        area = block[first : offsets[-1] + len(names[-1])]
        if not all(names) or max(map(len, names)) > MAX_NAME or SLASH in area or 0 in area:
            malformed("a file name that is empty, too long, or has a slash or NUL", start)
        return names, nids, types
