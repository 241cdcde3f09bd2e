"""The objects that an image refers to, with the sizes that its files have, without the tree."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from composefs.digest import Algorithm
from composefs.erofs.layout import CHUNK_BASED
from composefs.erofs.reader.image import Image, malformed
from composefs.erofs.reader.tree import Decoder, ReadRules
from composefs.erofs.reader.walk import Walk
from composefs.paths import shown
from composefs.tree import TYPE_MASK, collection_paused, object_path

__all__ = ["read_objects", "walk_objects"]


def read_objects(image: Image, algorithm: Algorithm, *, strict: bool = False) -> dict[str, int]:
    """Return the ids in the metacopy attributes of all regular files, each with the size of such a file.

    For ``strict``, and what it raises, see :func:`walk_objects`.
    """
    return {digest.hex(): size for digest, size in walk_objects(image, algorithm, strict=strict)}


def walk_objects(image: Image, algorithm: Algorithm, *, strict: bool = False) -> Iterator[tuple[bytes, int]]:
    """Yield the digest in the metacopy attribute of each regular file, raw, and the file's size.

    Raises FormatError as `read_tree` does; names and attributes are checked, symlinks and inline files are not read.
    ``strict`` also refuses files with another path than that of their digest: overlayfs follows the path, and compares
    the digest only where fs-verity is demanded.  So it does with content outside of the image but no digest, and with
    files of one digest and several sizes.
    """
    decoder = Decoder(image, ReadRules("rs", algorithm))
    attributes = decoder.regular.of
    sizes: dict[bytes, int] = {}  # filled if strict
    root = image.inode(image.root_nid)
    with collection_paused():
        for listing in Walk(image).directories(image.root_nid, root):
            for name, inode in zip(listing.names, listing.inodes, strict=True):
                if inode is None or inode.mode & TYPE_MASK != stat.S_IFREG:
                    continue
                _, metacopy, redirect = attributes(inode)
                digest = decoder.digest(metacopy, inode) if metacopy else None
                if strict and redirect != (None if digest is None else b"/" + object_path(digest)):
                    malformed(f"the file '{shown(name)}' has a path that is not its digest's", inode.offset)
                if digest is None:
                    if strict and inode.layout == CHUNK_BASED and inode.size:
                        malformed(
                            f"the file '{shown(name)}' has content outside of the image but no digest", inode.offset
                        )
                    continue
                if strict and sizes.setdefault(digest, inode.size) != inode.size:
                    malformed(f"the file '{shown(name)}' has not the size of another with its digest", inode.offset)
                yield digest, inode.size
