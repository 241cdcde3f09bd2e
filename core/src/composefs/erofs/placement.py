"""Where everything in an image goes: inode positions, tails, data blocks.

An inode is followed by its attributes and a *tail*: a directory's last block, a short file, a symlink's target or the
chunk table.  A tail must not cross a block boundary, so an inode may have to move.  How it moves is most of what makes
two writers' images equal, and differs between formats 0 and 1 on the one hand and 2 on the other.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs.erofs.layout import (
    BLOCK,
    CHUNK_BASED,
    COMPACT,
    DEVICES,
    DIRENT,
    EXTENDED,
    FLAT_INLINE,
    FLAT_PLAIN,
    INODES_START,
    MAX_TAIL,
    MIN_CHUNK_BITS,
    REGULAR,
    SLOT,
    SYMLINK,
    XATTR_ENTRY,
    XATTR_HEADER,
)
from composefs.erofs.overlay import Inode, WriteRules
from composefs.erofs.unfit import Unfit
from composefs.erofs.xattrs import MAX_AREA, AttributeSets

__all__ = ["Placement", "place"]


class Placement(NamedTuple):
    """Where the parts of an image are, in bytes from its start.

    ``end`` is where the last inode ends, ``inodes_end`` where the shared attributes start, ``data_start`` where the
    data does, which has ``blocks`` blocks.  ``build_time`` is the superblock's, (seconds, nanoseconds).
    """

    end: int
    inodes_end: int
    data_start: int
    build_time: tuple[int, int]
    blocks: int

    @property
    def size(self) -> int:
        """The bytes of the image."""
        return self.data_start + self.blocks * BLOCK


def place(inodes: list[Inode], xattrs: AttributeSets, rules: WriteRules) -> Placement:
    """Fill in the placement of all inodes; raise Unfit."""
    # One loop, in which most inodes cause no call: there are tens of thousands, of two or three microseconds each.
    version = rules.version
    build_time = _build_time(inodes, rules)
    redirect_overhead = XATTR_ENTRY.size + len(xattrs.redirect_start) + 3  # 3 to round up.
    compact_size, extended_size, pack_compact, pack_extended = COMPACT.size, EXTENDED.size, COMPACT.pack, EXTENDED.pack
    fit = _fit if version < 2 else _fit_format_2
    end = INODES_START
    data_blocks = 0
    for number, inode in enumerate(inodes):
        # Attributes, then data.
        node, redirect = inode.node, inode.redirect
        if redirect is None:
            xattr_size = inode.xattrs.size
        else:
            xattr_size = inode.xattrs.external_size + (redirect_overhead + len(redirect) & ~3)
        if xattr_size > MAX_AREA:
            message = f"a file's extended attributes take {xattr_size} bytes, more than {MAX_AREA}"
            raise Unfit(node, message, hint="fewer or shorter ones fit")
        blocks = tail = where = 0
        layout = FLAT_PLAIN
        size = stored_size = node.size
        if inode.chunk_bits:
            layout = CHUNK_BASED
            tail = 4 * (((size - 1) >> inode.chunk_bits) + 1) if version < 2 else 4
            where = inode.chunk_bits - MIN_CHUNK_BITS
        elif inode.names is not None:
            inode.groups, blocks, tail = _directory_blocks(inode.names)
            size = stored_size = blocks * BLOCK + tail
        elif inode.data is not None:
            tail = size = stored_size = len(inode.data)
            if inode.file_type == REGULAR:
                blocks, tail = _blocks_and_tail(*divmod(size, BLOCK))
        else:
            # libcomposefs minds what a dump says of a device's size, but not of a whiteout's.
            stored_size = 0
            if inode.file_type == REGULAR or not rules.c:
                size = 0
            if inode.file_type in DEVICES:
                where = node.rdev & 0xFFFFFFFF

        mtime, nlink, uid, gid = node.mtime, inode.nlink, node.uid, node.gid
        compact = (
            mtime == build_time
            and version < 2
            and nlink <= 0xFFFF
            and uid <= 0xFFFF
            and gid <= 0xFFFF
            and size <= 0xFFFFFFFF
        )
        head_size = (compact_size if compact else extended_size) + xattr_size

        position = end + SLOT - 1 & -SLOT
        # No rule moves what ends, tail included, in the block in which it begins.
        if tail and position % BLOCK + head_size + tail >= BLOCK:
            position, has_own_block = fit(inode, position, head_size, tail)
            if has_own_block:
                blocks += 1
                tail = 0

        # The inode's own structure.
        if tail and layout == FLAT_PLAIN:
            layout = FLAT_INLINE
        mode = inode.mode & 0xFFFF
        count = (xattr_size - XATTR_HEADER.size) // 4 + 1 if xattr_size else 0
        nid = position // SLOT
        if compact:
            head = pack_compact(layout, count, mode, nlink, stored_size, 0, where, number, uid, gid, 0)
        elif version < 2:
            head = pack_extended(layout | 1, count, mode, 0, stored_size, where, number, uid, gid, *mtime, nlink)
        else:
            head = pack_extended(layout | 1, count, mode, 0, stored_size, where, nid, uid, gid, mtime[0], 0, nlink)

        inode.padding = position - end
        inode.nid = nid
        inode.head = head
        inode.tail = tail
        inode.blocks = blocks
        end = position + head_size + tail
        if blocks:
            inode.first_block = data_blocks
            data_blocks += blocks
    inodes_end = end + SLOT - 1 & -SLOT
    data_start = inodes_end + len(xattrs.table) + BLOCK - 1 & -BLOCK
    return Placement(end, inodes_end, data_start, build_time, data_blocks)


def _build_time(inodes: list[Inode], rules: WriteRules) -> tuple[int, int]:
    """Return the superblock's time: the smallest of all, which compact inodes have; 0 in format 2, which has none."""
    if rules.version == 2:
        return 0, 0
    times = {inode.node.mtime for inode in inodes}
    return min(times) if rules.c else min(times, key=lambda time: (time[0] & (2**64 - 1), time[1]))


def _blocks_and_tail(blocks: int, rest: int) -> tuple[int, int]:
    """Return how many blocks of data there are, and the bytes of the tail: a long rest gets a block of its own."""
    return (blocks + 1, 0) if rest > MAX_TAIL else (blocks, rest)


def _directory_blocks(names: list[bytes]) -> tuple[list[tuple[int, int]] | None, int, int]:
    """Return the entries of each block of a directory (None: there is one), its blocks of data, and bytes of tail."""
    used = DIRENT.size * len(names) + sum(map(len, names))
    if used <= BLOCK:
        return None, *_blocks_and_tail(0, used)
    groups, used = _groups(names)
    return groups, *_blocks_and_tail(len(groups) - 1, used)


def _groups(names: list[bytes]) -> tuple[list[tuple[int, int]], int]:
    """Divide a directory's entries into blocks, each as full as possible; return ranges and bytes of the last."""
    groups = []
    start = used = 0
    for index, name in enumerate(names):
        cost = DIRENT.size + len(name)
        if used + cost > BLOCK:
            groups.append((start, index))
            start, used = index, 0
        used += cost
    groups.append((start, len(names)))
    return groups, used


def _fit(inode: Inode, position: int, head_size: int, tail: int) -> tuple[int, bool]:
    """Return where an inode goes that may cross a block, and whether its tail gets a block of its own: formats 0, 1.

    ``position`` is the first slot that is free; ``head_size`` and ``tail`` are bytes.
    """
    if inode.file_type == SYMLINK:
        # Inode, attributes and target are all in one block, or the target has its own.
        size = head_size + tail
        if position // BLOCK != (position + size - 1) // BLOCK:
            position = _next_block(position)
        return position, size >= BLOCK
    rest = BLOCK - (position + head_size) % BLOCK
    if rest >= tail:
        return position, False
    extra = rest + SLOT - 1 & -SLOT
    if tail <= BLOCK - (position + head_size + extra) % BLOCK:
        return position + extra, False
    return _next_block(position), True  # A table of more than 1016 chunks.


def _fit_format_2(inode: Inode, position: int, head_size: int, tail: int) -> tuple[int, bool]:
    """Return the same in format 2, in which only what is not in chunks is moved, and no tail gets a block."""
    rest = -(position + head_size) % BLOCK
    if inode.chunk_bits or tail < rest:
        return position, False
    position += rest + SLOT & -SLOT
    if (position + head_size) % BLOCK + tail > BLOCK:
        # composefs-rs 0.9.0 writes it all the same; the link cannot be read, nor does fsck.erofs accept it.
        message = f"a symlink's target of {tail} bytes would cross a block in EROFS format 2"
        raise Unfit(inode.node, message, hint="format 1 can hold it")
    return position, False


def _next_block(position: int) -> int:
    return position + BLOCK - 1 & -BLOCK
