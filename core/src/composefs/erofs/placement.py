"""Where everything in an image goes: inode positions, tails, data blocks.

An inode is followed by its attributes and a *tail*: a directory's last block, a short file, a symlink's target or the
chunk table.  A tail must not cross a block boundary, so an inode may have to move; how, is the greater part of what
makes two writers' images equal, and formats 0/1 and 2 do it differently.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs.erofs.layout import (
    BLOCK,
    COMPACT,
    DIRENT,
    EXTENDED,
    INODES_START,
    MAX_TAIL,
    REGULAR,
    SLOT,
    SYMLINK,
    XATTR_ENTRY,
)
from composefs.erofs.overlay import Inode, Rules
from composefs.erofs.xattrs import MAX_AREA, AttributeSets
from composefs.errors import TooLargeError

__all__ = ["Placement", "place"]


class Placement(NamedTuple):
    """``inodes_end`` is where the shared attributes start; ``build_time`` the superblock's; ``blocks`` of data."""

    inodes_end: int
    build_time: tuple[int, int]
    blocks: int


def place(inodes: list[Inode], xattrs: AttributeSets, rules: Rules) -> Placement:
    """Fill in the placement of all inodes.  ``first_block`` counts from the start of the data area."""
    build_time = (0, 0)
    if rules.version < 2:
        times = {inode.node.mtime for inode in inodes}
        build_time = min(times) if rules.c else min(times, key=lambda time: (time[0] & (2**64 - 1), time[1]))
    redirect_overhead = XATTR_ENTRY.size + len(xattrs.redirect_suffix) + 3  # 3 to round up.
    position = INODES_START
    data_blocks = 0
    for inode in inodes:
        # Attributes, then data.
        if inode.redirect is None:
            xattr_size = inode.xattrs.size
        else:
            xattr_size = inode.xattrs.external_size + (redirect_overhead + len(inode.redirect) & ~3)
        if xattr_size > MAX_AREA:
            raise TooLargeError(f"a file's extended attributes take {xattr_size} bytes, more than {MAX_AREA}")
        blocks = tail = 0
        size = inode.node.size
        names = inode.names
        if names is not None:
            inode.groups = None
            tail = DIRENT.size * len(names) + sum(map(len, names))
            if tail > BLOCK:
                inode.groups, tail = _directory_blocks(names)
                blocks = len(inode.groups) - 1
            if tail > MAX_TAIL:
                blocks += 1
                tail = 0
            size = blocks * BLOCK + tail
        elif inode.data is not None:
            size = len(inode.data)
            tail = size
            if inode.file_type == REGULAR:
                blocks, tail = divmod(size, BLOCK)
                if tail > MAX_TAIL:
                    blocks += 1
                    tail = 0
        elif inode.chunk_bits:
            tail = 4 * (((size - 1) >> inode.chunk_bits) + 1) if rules.version < 2 else 4

        # The inode itself.
        node = inode.node
        compact = (
            rules.version < 2
            and node.mtime == build_time
            and inode.nlink <= 0xFFFF
            and node.uid <= 0xFFFF
            and node.gid <= 0xFFFF
            and size <= 0xFFFFFFFF
        )
        head = (COMPACT.size if compact else EXTENDED.size) + xattr_size

        # Formats 0/1: a symlink's inode, attributes and target are all in one block, or the target has its own.
        position = position + SLOT - 1 & -SLOT
        if not tail:
            pass
        elif rules.version == 2:
            rest = -(position + head) % BLOCK
            if not inode.chunk_bits and tail >= rest:
                position += rest + SLOT & -SLOT
                if (position + head) % BLOCK + tail > BLOCK:
                    # composefs-rs 0.9.0 writes it all the same; the link cannot be read, nor does fsck.erofs accept it.
                    raise TooLargeError(
                        f"a symlink's target of {tail} bytes would cross a block in EROFS format 2",
                        hint="format 1 can hold it",
                    )
        elif inode.file_type == SYMLINK:
            total = head + tail
            if position // BLOCK != (position + total - 1) // BLOCK:
                position = position + BLOCK - 1 & -BLOCK
            if total >= BLOCK:
                blocks, tail = 1, 0
        else:
            rest = BLOCK - (position + head) % BLOCK
            if rest < tail:
                extra = rest + SLOT - 1 & -SLOT
                if tail <= BLOCK - (position + head + extra) % BLOCK:
                    position += extra
                else:  # A table of more than 1016 chunks.
                    blocks += 1
                    tail = 0
                    position = position + BLOCK - 1 & -BLOCK

        inode.position = position
        inode.compact = compact
        inode.size = size
        inode.xattr_size = xattr_size
        inode.blocks = blocks
        inode.tail = tail
        inode.first_block = data_blocks
        position += head + tail
        data_blocks += blocks
    return Placement(position + SLOT - 1 & -SLOT, build_time, data_blocks)


def _directory_blocks(names: list[bytes]) -> tuple[list[tuple[int, int]], int]:
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
