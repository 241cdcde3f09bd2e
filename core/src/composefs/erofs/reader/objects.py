"""The objects that an image refers to, without the tree."""

from __future__ import annotations

import stat

from composefs.digest import Algorithm
from composefs.erofs.reader.image import Image, malformed
from composefs.erofs.reader.tree import Decoder, Rules
from composefs.erofs.reader.walk import Walk
from composefs.tree import TYPE_MASK, collection_paused, object_path

__all__ = ["read_objects"]


def read_objects(image: Image, algorithm: Algorithm, *, strict: bool = False) -> set[str]:
    """Return the ids in the metacopy attributes of all regular files.

    Raises FormatError as `read_tree` does; names and attributes are checked, symlinks and inline files are not read.
    ``strict`` also refuses what has another path than that of its digest: overlayfs follows the path, and compares the
    digest only where fs-verity is demanded.
    """
    decoder = Decoder(image, Rules("rs", algorithm))
    attributes = decoder.regular.of
    digests: set[bytes | None] = set()
    root = image.inode(image.root_nid)
    with collection_paused():
        for listing in Walk(image).directories(image.root_nid, root):
            for name, inode in zip(listing.names, listing.inodes, strict=True):
                if inode is not None and inode.mode & TYPE_MASK == stat.S_IFREG:
                    _, metacopy, redirect = attributes(inode)
                    digest = decoder.digest(metacopy, inode) if metacopy else None
                    digests.add(digest)
                    if strict and redirect != (None if digest is None else b"/" + object_path(digest)):
                        malformed(f"the file {name!a} has a path that is not its digest's", inode.offset)
    return {digest.hex() for digest in digests if digest is not None}
