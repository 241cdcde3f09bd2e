"""Single paths of an image, found as the kernel finds them: by binary search in the blocks of directories."""

from __future__ import annotations

import stat
from bisect import bisect_left

from composefs.erofs.reader.image import Image, Inode
from composefs.erofs.reader.tree import Decoder, ReadRules, read_below
from composefs.erofs.reader.walk import Walk
from composefs.errors import NotFoundError
from composefs.paths import LinksError, Trail, follow, joined, shown
from composefs.tree import Node

__all__ = ["Lookup"]

DOTS = (b".", b"..")
_KEPT = 64
"""Blocks of directories that are kept as they were read: next to one path, others are asked for."""


class Lookup:
    """Finds paths in an image and reads what is there, and nothing else of the image.

    A path is the names joined by slashes; more slashes do no harm, and except for `follow` ``.`` and ``..`` are names
    that do not exist.
    Raises NotFoundError for a path that does not exist, FormatError for an image that is damaged on the way.
    """

    def __init__(self, image: Image, rules: ReadRules = ReadRules()) -> None:
        self._image = image
        self._decoder = Decoder(image, rules)
        self._blocks: dict[tuple[int, int], tuple[list[bytes], tuple[int, ...]]] = {}

    def node(self, path: bytes) -> Node:
        """Return the node at a path, a directory without its children."""
        return self.find(path)[1]

    def find(self, path: bytes) -> tuple[int, Node]:
        """Return the number of the inode at a path, the same for all names of a file, and the node."""
        nid = self._find(path)
        return nid, self._decoder.node(self._image.inode(nid))[0]

    def follow(self, path: bytes, *, last: bool = True) -> tuple[bytes, Node]:
        """Return where a path leads through symlinks and ``..``, as for who has the image as root, and what is there.

        There is nothing behind more symlinks than the kernel follows.  The last name's, if it has no slash behind it,
        is followed only if ``last``.
        """
        into = path.endswith((b"/", b"/."))  # a directory, as the kernel has it

        def child(way: Trail[int], name: bytes) -> int | None:
            if not stat.S_ISDIR(self._image.inode(way[-1][1]).mode):
                raise NotFoundError(f"{shown(path)} not found")
            return self._child(way[-1][1], name)

        try:
            trail = follow(self._image.root_nid, path, child, self._target, last=last or into)
        except LinksError as error:  # the image is well-formed for all that
            raise NotFoundError(error.message) from error
        if trail is None:
            raise NotFoundError(f"{shown(path)} not found")
        inode = self._image.inode(trail[-1][1])
        if into and not stat.S_ISDIR(inode.mode):
            raise NotFoundError(f"{shown(path)} not found")
        return joined(trail), self._decoder.node(inode)[0]

    def below(self, path: bytes) -> Node:
        """Return the node at a path with all that is below it."""
        return read_below(self._decoder, self._find(path), len(path))

    def children(self, path: bytes) -> dict[bytes, Node]:
        """Return the nodes in a directory by name, directories without their children; of a file, nothing."""
        return {name: node for name, _, node in self.entries(path)}

    def entries(self, path: bytes) -> list[tuple[bytes, int, Node]]:
        """Return what :meth:`children` does, with the number of each inode in between, as :meth:`find` has it."""
        nid = self._find(path)
        inode = self._image.inode(nid)
        if not stat.S_ISDIR(inode.mode):
            return []
        entries = []
        listing = next(Walk(self._image).directories(nid, inode))
        nodes: dict[int, Node] = {}
        for name, child_nid, child in zip(listing.names, listing.nids, listing.inodes, strict=True):
            if child is not None and not self._dropped(child, name, nid):
                nodes[child_nid] = self._decoder.node(child)[0]
            if child_nid in nodes:
                entries.append((name, child_nid, nodes[child_nid]))
        return entries

    def _find(self, path: bytes) -> int:
        nid: int = self._image.root_nid
        for name in filter(None, path.split(b"/")):
            child = self._child(nid, name)
            if child is None:
                raise NotFoundError(f"{shown(path)} not found")
            nid = child
        return nid

    def _child(self, nid: int, name: bytes) -> int | None:
        """Return the nid of what has a name in a directory; of a file, None."""
        inode = self._image.inode(nid)
        child = self._search(inode, name) if stat.S_ISDIR(inode.mode) and name not in DOTS else None
        return None if child is None or self._dropped(self._image.inode(child), name, nid) else child

    def _target(self, nid: int) -> bytes | None:
        inode = self._image.inode(nid)
        return self._decoder.node(inode)[0].payload if stat.S_ISLNK(inode.mode) else None

    def _dropped(self, inode: Inode, name: bytes, directory: int) -> bool:
        return self._decoder.dropped(inode, name, in_root=directory == self._image.root_nid)

    def _search(self, directory: Inode, wanted: bytes) -> int | None:
        """Return the nid of a name in a directory."""
        blocks = self._image.blocks(directory)
        low, high = 0, len(blocks)
        while low < high:
            middle = (low + high) // 2
            names, nids = self._block(*blocks[middle])
            if wanted < names[0]:
                high = middle
            elif wanted > names[-1]:
                low = middle + 1
            else:
                place = bisect_left(names, wanted)
                return nids[place] if place < len(names) and names[place] == wanted else None
        return None

    def _block(self, start: int, length: int) -> tuple[list[bytes], tuple[int, ...]]:
        """Return names and nids in a block; to read one takes as long as all the rest of a search."""
        found = self._blocks.get((start, length))
        if found is None:
            if len(self._blocks) == _KEPT:
                self._blocks.clear()
            found = self._blocks[start, length] = self._image.block(start, length)[:2]
        return found
