"""Finding files in a tree by path, and reading them.

A tree knows the digests of its files, not their bytes, so whoever made it says how to read them: `Contents`.  What
comes back is checked against the digest, so that what we conclude from a file holds for the file that the image will
have.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

from composefs.errors import ConflictError, FormatError, NotFoundError, TooLargeError
from composefs.fsverity import digest_bytes
from composefs.paths import Trail, follow, joined, shown
from composefs.tree import TYPE_MASK, Node, Tree

__all__ = ["Contents", "Files", "decoded"]

Contents = Callable[[bytes, Node], bytes]
"""Return the bytes of a regular file, given its path in the tree (absolute, without links) and its node.

It need not read more than the node's size and one byte.
"""


class Files:
    """The files of a tree, by path.

    ``follow``: symlinks are followed, always inside of the tree; else they are not what they point to.
    """

    def __init__(self, tree: Tree, contents: Contents, *, follow: bool = False) -> None:
        self._tree = tree
        self._contents = contents
        self._follow = follow

    def find(self, path: bytes) -> tuple[bytes, Node] | None:
        """Return a file of any type, with its path without links, or None if there is none.

        Raises FormatError where something on the way is not a directory.
        """
        trail = follow(self._tree.root, path, _child, self._target)
        return None if trail is None else (joined(trail), trail[-1][1])

    def _target(self, node: Node) -> bytes | None:
        return (node.payload or b"") if self._follow and stat.S_ISLNK(node.mode) else None

    def directory(self, path: bytes) -> dict[bytes, Node] | None:
        """Return the entries of a directory, or None if it is missing; FormatError for another type of file."""
        found = self.find(path)
        if found is None:
            return None
        if found[1].children is None:
            raise FormatError(f"{shown(path)} is not a directory")
        return found[1].children

    def read(self, path: bytes, limit: int) -> bytes | None:
        """Return what a regular file holds, or None if it is missing.

        Raises FormatError for another type of file, TooLargeError beyond ``limit`` bytes.
        """
        found = self.find(path)
        if found is None:
            return None
        place, node = found
        if node.mode & TYPE_MASK != stat.S_IFREG:
            raise FormatError(f"{shown(path)} is not a regular file")
        if node.size > limit:
            raise TooLargeError(f"{shown(path)} has {node.size} bytes, more than {limit}")
        if not node.external:
            return node.content or b""
        if node.digest is None:
            raise NotFoundError(f"the content of {shown(path)} is not known")
        data = self._contents(place, node)
        if len(data) != node.size or digest_bytes(data, self._tree.algorithm) != node.digest:
            raise ConflictError(f"{shown(path)} has not the content that the tree says", subject=node.digest.hex())
        return data


def decoded(data: bytes, what: str) -> str:
    """Return a text; FormatError, naming ``what`` it is, if it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise FormatError(f"{what} is not UTF-8", offset=error.start) from error


def _child(trail: Trail[Node], name: bytes) -> Node | None:
    children = trail[-1][1].children
    if children is None:
        raise FormatError(f"{shown(joined(trail))} is not a directory")
    return children.get(name)
