"""The bytes of an image whose inodes have been placed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, repeat

from composefs.erofs.layout import (
    BLOCK,
    CHUNK_BASED,
    DIRENT,
    MAX_CHUNKS,
    PLACE_OFFSET,
    UNMAPPED_CHUNK,
    header_and_superblock,
)
from composefs.erofs.overlay import Inode, WriteRules
from composefs.erofs.placement import Placement
from composefs.erofs.xattrs import AttributeSets
from composefs.tree import collection_paused

__all__ = ["emit"]


_PIECES_JOINED = 65536
"""Some MiB: joining as we go keeps hundreds of thousands of small bytes objects from being alive at once."""


def emit(inodes: list[Inode], xattrs: AttributeSets, placement: Placement, rules: WriteRules) -> Iterator[bytes]:
    """Yield the image in pieces of some MiB."""
    with collection_paused():
        yield from _emit(inodes, xattrs, placement, rules)


def _emit(inodes: list[Inode], xattrs: AttributeSets, placement: Placement, rules: WriteRules) -> Iterator[bytes]:
    inodes_end, data_start = placement.inodes_end, placement.data_start
    xattrs.locate(inodes_end % BLOCK if rules.version < 2 else inodes_end)
    first_data_block = data_start // BLOCK
    superblock = header_and_superblock(
        version=rules.version,
        has_acl=rules.version < 2 and xattrs.has_acl,
        root_nid=inodes[0].nid,
        inodes=len(inodes),
        build_time=placement.build_time,
        blocks=first_data_block + placement.blocks,
        xattr_block=inodes_end // BLOCK if rules.version < 2 else 0,
    )
    pieces = [superblock]
    data: list[bytes] = []
    for inode in inodes:
        head, tail = inode.head, inode.tail
        if inode.blocks:
            head = _with_block_number(head, first_data_block + inode.first_block)
        found, redirect = inode.xattrs, inode.redirect
        if redirect is None:
            pieces += bytes(inode.padding), head, found.area
        else:
            digest = inode.digest
            assert digest is not None
            between, after = found.pointers.get(len(redirect)) or xattrs.pointers(found, len(redirect))
            pieces += bytes(inode.padding), head, found.external_start, digest, between, redirect, after
        if inode.chunk_bits:
            pieces.append(UNMAPPED_CHUNK if tail == 4 else UNMAPPED_CHUNK * (tail // 4))
            if inode.blocks:
                data.append(UNMAPPED_CHUNK * MAX_CHUNKS)
        elif inode.names is not None:
            _directory(inode, pieces, data)
        elif inode.data is not None:
            rest = inode.data[: len(inode.data) - tail]
            pieces.append(inode.data[len(rest) :])
            if inode.blocks:
                data += rest, bytes(inode.blocks * BLOCK - len(rest))
        if len(pieces) > _PIECES_JOINED:
            yield b"".join(pieces)
            pieces.clear()

    pieces += bytes(inodes_end - placement.end), xattrs.table, bytes(data_start - inodes_end - len(xattrs.table))
    yield b"".join(pieces)
    yield b"".join(data)


def _with_block_number(head: bytes, block: int) -> bytes:
    """Return an inode's structure with the number of its first block of data.

    libcomposefs writes the chunk format over a block number, of which the upper half stays.
    """
    start = PLACE_OFFSET + 2 * (head[0] & ~1 == CHUNK_BASED)
    end = PLACE_OFFSET + 4
    return head[:start] + block.to_bytes(4, "little")[start - end :] + head[end:]


def _directory(inode: Inode, pieces: list[bytes], data: list[bytes]) -> None:
    """Add a directory's blocks: those in the data area are padded, the one behind the inode is not."""
    names, targets = inode.names, inode.targets
    assert names is not None
    # Otherwise the cycles of . and .. would keep all inodes until a collection, of 3 µs for each.
    del inode.parent, inode.targets
    for index, (start, end) in enumerate(inode.groups or [(0, len(names))]):
        group = names[start:end]
        inside = targets[start:end]
        # Columns, so that nothing is done here for each entry: a third of the time.
        nids = [target.nid for target in inside]
        offsets = accumulate(map(len, group), initial=DIRENT.size * len(group))
        types = [target.file_type for target in inside]
        block = b"".join([*map(DIRENT.pack, nids, offsets, types, repeat(0)), *group])
        if index < inode.blocks:
            data += block, bytes(BLOCK - len(block))
        else:
            pieces.append(block)
