"""Images with chosen faults, for the tests of the reader."""

from __future__ import annotations

import struct

from composefs import dumpfile, erofs
from composefs.digest import SHA256, Algorithm
from composefs.erofs.layout import BLOCK, COMPACT, DIRENT, EXTENDED, SLOT, SUPERBLOCK_START

ROOT = "/ 0 40755 2 0 0 0 0.0 - - -"
DIGEST = "ab" * 32


def make_image(*lines: str, version: int = 2, compat: str = "rs", algorithm: Algorithm = SHA256) -> bytearray:
    """Make an image of a root and these lines."""
    assert compat in ("rs", "c")
    tree = dumpfile.parse("".join(line + "\n" for line in (ROOT, *lines)).encode(), algorithm)
    return bytearray(b"".join(erofs.write(tree, version=version, compat="c" if compat == "c" else "rs")))


class Patch:
    """Finds places in an image of format 2 by path, without the reader that is under test."""

    def __init__(self, image: bytearray) -> None:
        self.image = image
        (root,) = struct.unpack_from("<H", image, SUPERBLOCK_START + 14)
        self.root = int(root) * SLOT

    def inode(self, path: str) -> int:
        """The offset of a path's inode; ``/`` is the root."""
        offset = self.root
        for name in filter(None, path.split("/")):
            offset = SLOT * int(struct.unpack_from("<Q", self.image, self.dirent(offset, name))[0])
        return offset

    def dirent(self, directory: int, name: str) -> int:
        """The offset of the entry of a name in a directory that has only a tail."""
        start, size = self.tail(directory)
        (first,) = struct.unpack_from("<H", self.image, start + 8)
        offsets = [struct.unpack_from("<H", self.image, start + at + 8)[0] for at in range(0, first, DIRENT.size)]
        for index, (begin, end) in enumerate(zip(offsets, [*offsets[1:], size], strict=True)):
            if self.image[start + begin : start + end] == name.encode():
                return start + index * DIRENT.size
        raise LookupError(name)

    def tail(self, inode: int) -> tuple[int, int]:
        """The offset and size of what stands behind an inode."""
        count, size = struct.unpack_from("<HxxxxQ", self.image, inode + 2)
        start = inode + (EXTENDED.size if self.image[inode] & 1 else COMPACT.size) + (8 + 4 * count if count else 0)
        return start, size % BLOCK

    def put(self, offset: int, form: str, *values: int | bytes) -> bytearray:
        """Write values at an offset, and return the image."""
        struct.pack_into(form, self.image, offset, *values)
        return self.image
