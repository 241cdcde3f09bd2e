"""Constants and structures of an EROFS image as composefs writes it.

Offsets are bytes from the start of the file; everything is little-endian.

========================  ===============================================================================
0                         composefs header, 32 bytes
1024                      EROFS superblock, 128 bytes
1152                      inodes, each in 32-byte slots with its attributes and tail; nid = offset / 32
behind the last inode     table of shared extended attributes
next multiple of 4096     whole data blocks of directories and inline files, in inode order
========================  ===============================================================================

Sources: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of the Linux kernel; libcomposefs 1.4 for the
header and for how the fields are used.
"""

from __future__ import annotations

import stat
import struct

from composefs.imageformats import EROFS_FORMATS

__all__ = [
    "BLOCK",
    "BLOCK_BITS",
    "CHUNK_BASED",
    "COMPACT",
    "COMPOSEFS_HAS_ACL",
    "COMPOSEFS_HEADER_VERSION",
    "COMPOSEFS_MAGIC",
    "DEVICES",
    "DIRENT",
    "EROFS_MAGIC",
    "EXTENDED",
    "FILE_TYPES",
    "FLAT_INLINE",
    "FLAT_PLAIN",
    "HEADER",
    "INODES_START",
    "MAX_CHUNKS",
    "MAX_CHUNK_BITS",
    "MAX_ENTRIES",
    "MAX_IMAGE",
    "MAX_TAIL",
    "MAX_VERSION",
    "MAX_XATTR_REFERENCES",
    "MIN_CHUNK_BITS",
    "PLACE_OFFSET",
    "REGULAR",
    "SLOT",
    "SUPERBLOCK",
    "SUPERBLOCK_START",
    "SYMLINK",
    "UNMAPPED_CHUNK",
    "WHITEOUT_VERSIONS",
    "XATTR_ENTRY",
    "XATTR_FILTER_SEED",
    "XATTR_HEADER",
    "XATTR_INDEX_TRUSTED",
    "XATTR_PREFIXES",
    "header_and_superblock",
]

MAX_IMAGE = 1 << 30
"""Bytes of the largest image that is read."""
MAX_ENTRIES = 3_000_000
"""The most names, and the most attributes of different sets, of an image that is read.

So many files with objects of sha512 have an image of MAX_IMAGE bytes.  In memory a name takes up to 900 bytes, with an
attribute of its own 1,800; of the shortest ones MAX_IMAGE would hold twenty times as many.
"""

BLOCK_BITS = 12
BLOCK = 1 << BLOCK_BITS
SLOT = 32
SUPERBLOCK_START = 1024
INODES_START = SUPERBLOCK_START + 128

COMPOSEFS_MAGIC = 0xD078629A
COMPOSEFS_HEADER_VERSION = 1
COMPOSEFS_HAS_ACL = 1
MAX_VERSION = max(EROFS_FORMATS)
WHITEOUT_VERSIONS = (0, 1)
"""Formats in which whiteouts are rewritten, and the root has stubs (`composefs.erofs.overlay`)."""
HEADER = struct.Struct("<IIII16x")  # Magic, header version, flags, format version.

EROFS_MAGIC = 0xE0F5E1E2
COMPAT_MTIME = 2
COMPAT_XATTR_FILTER = 4
# Magic, checksum (unused), compatible features, block bits, slots of extra superblock, root nid, inodes,
# build time (s, ns), blocks, first block of metadata, first block of shared attributes; after UUID and name the
# incompatible features, later the bits that a directory's blocks have more than others.  What comes behind the shared
# attributes is zero in ours, although there are chunk-based inodes.
SUPERBLOCK = struct.Struct("<IIIBBHQqIIII32xI6xB37x")

FLAT_PLAIN = 0 << 1
FLAT_INLINE = 2 << 1
CHUNK_BASED = 4 << 1
"""Data layouts as they stand in an inode's format field; bit 0 is set in an extended inode."""

# Format, attribute count, mode, links, size, -, block or device or chunk format, inode number, uid, gid, -.
COMPACT = struct.Struct("<HHHHIIIIHHI")
# Format, attribute count, mode, -, size, block or device or chunk format, inode number, uid, gid, mtime s, ns, links.
EXTENDED = struct.Struct("<HHHHQIIIIqII16x")
PLACE_OFFSET = 16
"""Where in both the block or device or chunk format stands."""

MIN_CHUNK_BITS = BLOCK_BITS
MAX_CHUNK_BITS = BLOCK_BITS + 31
MAX_CHUNKS = 1024
"""libcomposefs' limit, which makes 2^53 bytes the largest file."""
UNMAPPED_CHUNK = b"\xff\xff\xff\xff"

DIRENT = struct.Struct("<QHBB")  # Nid, offset of the name in the block, file type, -.
REGULAR = 1
SYMLINK = 7
FILE_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: SYMLINK,
}
DEVICES = (FILE_TYPES[stat.S_IFCHR], FILE_TYPES[stat.S_IFBLK])
MAX_TAIL = BLOCK // 2
"""A rest of more bytes than this gets a block of its own instead of a place behind the inode."""

XATTR_HEADER = struct.Struct("<IB7x")  # Name filter, number of references to shared attributes.
XATTR_ENTRY = struct.Struct("<BBH")  # Length of the name, prefix index, length of the value.
XATTR_INDEX_TRUSTED = 4
XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", XATTR_INDEX_TRUSTED),
    (b"security.", 6),
)
XATTR_FILTER_SEED = 0x25BBE08F
MAX_XATTR_REFERENCES = 255


def header_and_superblock(
    *,
    version: int,
    has_acl: bool,
    root_nid: int,
    inodes: int,
    build_time: tuple[int, int],
    blocks: int,
    xattr_block: int,
) -> bytes:
    """Return the first 1152 bytes of an image."""
    header = HEADER.pack(COMPOSEFS_MAGIC, COMPOSEFS_HEADER_VERSION, COMPOSEFS_HAS_ACL if has_acl else 0, version)
    features = COMPAT_MTIME | COMPAT_XATTR_FILTER
    superblock = SUPERBLOCK.pack(
        EROFS_MAGIC, 0, features, BLOCK_BITS, 0, root_nid, inodes, *build_time, blocks, 0, xattr_block, 0, 0
    )
    return header.ljust(SUPERBLOCK_START, b"\0") + superblock
