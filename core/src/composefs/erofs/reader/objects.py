"""The objects that an image refers to, without the tree."""

from __future__ import annotations

import stat

from composefs.digest import Algorithm
from composefs.erofs.reader.image import Image
from composefs.erofs.reader.tree import Decoder, Rules
from composefs.erofs.reader.walk import Walk
from composefs.tree import TYPE_MASK, collection_paused

__all__ = ["read_objects"]


def read_objects(image: Image, algorithm: Algorithm) -> set[str]:
    """Return the ids in the metacopy attributes of all regular files, as overlayfs would follow them.

    Raises FormatError as `read_tree` does; names and attributes are checked, symlinks and inline files are not read.
    """
    decoder = Decoder(image, Rules("rs", algorithm))
    attributes = decoder.regular.of
    digests: set[bytes | None] = set()
    root = image.inode(image.root_nid)
    with collection_paused():
        for listing in Walk(image).directories(image.root_nid, root):
            for inode in listing.inodes:
                if inode is not None and inode.mode & TYPE_MASK == stat.S_IFREG:
                    metacopy = attributes(inode)[1]
                    if metacopy:
                        digests.add(decoder.digest(metacopy, inode))
    return {digest.hex() for digest in digests if digest is not None}
