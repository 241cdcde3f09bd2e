"""The bytes of an image whose inodes have been placed."""

from __future__ import annotations

import stat
from itertools import accumulate

from composefs.erofs.layout import (
    BLOCK,
    CHUNK_BASED,
    COMPACT,
    DIRENT,
    EXTENDED,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODES_START,
    MAX_CHUNKS,
    MIN_CHUNK_BITS,
    SLOT,
    UNMAPPED_CHUNK,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_INDEX_TRUSTED,
    header_and_superblock,
)
from composefs.erofs.overlay import Inode, Rewritten, Rules
from composefs.erofs.placement import Placement
from composefs.tree import TYPE_MASK

__all__ = ["emit"]


_PIECES_JOINED = 65536
"""Some MiB: joining as we go keeps hundreds of thousands of small bytes objects from being alive at once."""


def emit(rewritten: Rewritten, placement: Placement, rules: Rules) -> list[bytes]:
    """Return the image in pieces of some MiB."""
    inodes, _, xattrs = rewritten
    inodes_end = placement.inodes_end
    data_start = inodes_end + len(xattrs.table) + BLOCK - 1 & -BLOCK
    xattrs.locate(inodes_end % BLOCK if rules.version < 2 else inodes_end)
    superblock = header_and_superblock(
        version=rules.version,
        has_acl=rules.version < 2 and xattrs.has_acl,
        root_nid=inodes[0].position // SLOT,
        inodes=len(inodes),
        build_time=placement.build_time,
        blocks=data_start // BLOCK + placement.blocks,
        xattr_block=inodes_end // BLOCK if rules.version < 2 else 0,
    )
    image: list[bytes] = []
    pieces = [superblock]
    data: list[bytes] = []
    first_data_block = data_start // BLOCK
    redirect_head, suffix = XATTR_ENTRY.pack, xattrs.redirect_suffix
    compact_size, extended_size = COMPACT.size, EXTENDED.size
    position = INODES_START
    for number, inode in enumerate(inodes):
        if inode.position != position:
            pieces.append(bytes(inode.position - position))
        pieces.append(_head(inode, number, first_data_block, rules.version))

        found, redirect, digest = inode.xattrs, inode.redirect, inode.digest
        if redirect is None or digest is None:
            pieces.append(found.area)
        else:
            pieces += (
                found.external_start,
                digest,
                found.between,
                redirect_head(len(suffix), XATTR_INDEX_TRUSTED, len(redirect)),
                suffix,
                redirect,
                bytes(-(len(suffix) + len(redirect)) % 4),
                found.after,
            )

        tail = inode.tail
        if inode.names is not None:
            _directory(inode, pieces, data)
        elif inode.data is not None:
            head, rest = inode.data[: len(inode.data) - tail], inode.data[len(inode.data) - tail :]
            pieces.append(rest)
            if inode.blocks:
                data += head, bytes(inode.blocks * BLOCK - len(head))
        elif inode.chunk_bits:
            pieces.append(UNMAPPED_CHUNK * (tail // 4))
            if inode.blocks:
                data.append(UNMAPPED_CHUNK * MAX_CHUNKS)

        position = inode.position + (compact_size if inode.compact else extended_size) + inode.xattr_size + tail
        if len(pieces) > _PIECES_JOINED:
            image.append(b"".join(pieces))
            pieces.clear()

    pieces += bytes(inodes_end - position), xattrs.table, bytes(data_start - inodes_end - len(xattrs.table))
    return [*image, b"".join(pieces), b"".join(data)]


def _head(inode: Inode, number: int, first_data_block: int, version: int) -> bytes:
    """Return the inode's own structure; ``number`` is its place in the order."""
    node = inode.node
    size = inode.size
    layout = FLAT_INLINE if inode.tail else FLAT_PLAIN
    place = first_data_block + inode.first_block if inode.blocks else 0
    if inode.chunk_bits:
        layout = CHUNK_BASED
        # libcomposefs writes the chunk format over a block number, of which the upper half stays.
        place = place & 0xFFFF0000 | inode.chunk_bits - MIN_CHUNK_BITS
    elif inode.data is None and inode.names is None:
        size = 0
        if inode.mode & TYPE_MASK in (stat.S_IFCHR, stat.S_IFBLK):
            place = node.rdev & 0xFFFFFFFF
    mode = inode.mode & 0xFFFF
    xattrs = (inode.xattr_size - XATTR_HEADER.size) // 4 + 1 if inode.xattr_size else 0
    if inode.compact:
        return COMPACT.pack(layout, xattrs, mode, inode.nlink, size, 0, place, number, node.uid, node.gid, 0)
    seconds, nanoseconds = node.mtime
    if version == 2:
        number, nanoseconds = inode.position // SLOT, 0
    return EXTENDED.pack(
        layout | 1, xattrs, mode, 0, size, place, number, node.uid, node.gid, seconds, nanoseconds, inode.nlink
    )


def _directory(inode: Inode, pieces: list[bytes], data: list[bytes]) -> None:
    """Add a directory's blocks: those in the data area are padded, the one behind the inode is not."""
    names, targets = inode.names, inode.targets
    assert names is not None
    dirent = DIRENT.pack
    groups = inode.groups or [(0, len(names))]
    for index, (start, end) in enumerate(groups):
        group = names[start:end] if inode.groups else names
        offsets = accumulate(map(len, group), initial=DIRENT.size * len(group))
        block = b"".join(
            [
                dirent(target.position // SLOT, offset, target.file_type, 0)
                for target, offset in zip(targets[start:end], offsets, strict=False)
            ]
            + group
        )
        if index < inode.blocks:
            data += block, bytes(BLOCK - len(block))
        else:
            pieces.append(block)
