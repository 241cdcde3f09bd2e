"""A file tree in memory: the one model between dump files, directories and EROFS images.

A `Node` is an inode.  A directory maps names to nodes, and a node under several names is a hard link group.
Two rules keep the passes over large trees cheap, and every producer holds them:

* ``children`` is in bytewise order of the names (the order of every format here), so nobody sorts again;
* ``xattrs`` may be one mapping shared by many nodes.  It is replaced, never modified; consumers do their work once for
  each distinct mapping, because an operating system's thousands of files have a handful of different attribute sets.

Names, targets and attributes are bytes: no encoding is assumed anywhere.
"""

from __future__ import annotations

import gc
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from composefs.digest import Algorithm
from composefs.errors import NotFoundError
from composefs.paths import shown

__all__ = [
    "C_MAX_XATTRS",
    "MAX_CONTENT",
    "MAX_NAME",
    "MAX_TARGET",
    "MAX_XATTR_VALUE",
    "NO_XATTRS",
    "TYPE_MASK",
    "Node",
    "Tree",
    "c_xattrs_size",
    "collection_paused",
    "find",
    "object_path",
    "sort_children",
    "walk",
]

MAX_NAME = 255
"""Bytes of a file name (NAME_MAX) and of an extended attribute's full name (XATTR_NAME_MAX)."""
MAX_TARGET = 4095
"""Bytes of a symlink target, and of a file's path in an object store (PATH_MAX counts a NUL)."""
MAX_XATTR_VALUE = 65535
"""Bytes of an extended attribute's value (XATTR_SIZE_MAX is 65536, the image's length field has 16 bits)."""
MAX_CONTENT = 5000
"""Bytes of a file that may be kept inside the image, libcomposefs' limit."""
C_MAX_XATTRS = 32767
"""libcomposefs' limit of all attributes of a node, as :func:`c_xattrs_size` counts them."""

TYPE_MASK = 0o170000
NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})


class Node:
    """An inode.

    ``mode`` has the type bits.  ``mtime`` is (seconds, nanoseconds).  ``payload`` is a symlink's target or a regular
    file's path in the object store (None: not known); ``content`` a small regular file's bytes; ``digest`` the raw
    fs-verity digest of a regular file.  ``nlink`` is what the source said, which only C's images believe.

    ``home`` is None for a node with one name.  A hard link group has (directory, name) there: the name that the source
    treats as the real one.  It may stay set when the other names go away.

    A regular file with a size and without content is *external*: its bytes are an object.
    """

    __slots__ = (
        "children",
        "content",
        "digest",
        "gid",
        "home",
        "mode",
        "mtime",
        "nlink",
        "payload",
        "rdev",
        "size",
        "uid",
        "xattrs",
    )

    # Plain assignments and positional calls: a dataclass with defaults costs a third more for each of a dump's lines.
    def __init__(
        self,
        mode: int,
        nlink: int = 1,
        uid: int = 0,
        gid: int = 0,
        rdev: int = 0,
        mtime: tuple[int, int] = (0, 0),
        size: int = 0,
        payload: bytes | None = None,
        content: bytes | None = None,
        digest: bytes | None = None,
        xattrs: Mapping[bytes, bytes] = NO_XATTRS,
        children: dict[bytes, Node] | None = None,
    ) -> None:
        self.mode = mode
        self.nlink = nlink
        self.uid = uid
        self.gid = gid
        self.rdev = rdev
        self.mtime = mtime
        self.size = size
        self.payload = payload
        self.content = content
        self.digest = digest
        self.xattrs = xattrs
        self.children = children
        self.home: tuple[Node, bytes] | None = None

    @property
    def external(self) -> bool:
        """Whether the bytes of this file are kept outside of the image."""
        return self.mode & TYPE_MASK == stat.S_IFREG and self.size > 0 and not self.content


def object_path(digest: bytes) -> bytes:
    """Return the path in an object store of the file that has a digest, as payloads and dumps have it."""
    return digest.hex("/", len(digest) - 1).encode()


def c_xattrs_size(xattrs: Mapping[bytes, bytes]) -> int:
    """Return libcomposefs' estimate of the bytes that a node's attributes take in an image."""
    return 12 + sum([7 + len(name) + len(value) for name, value in xattrs.items()])


class Tree:
    """A root directory, and the algorithm of the digests below it."""

    __slots__ = ("algorithm", "root")

    def __init__(self, root: Node, algorithm: Algorithm) -> None:
        self.root = root
        self.algorithm = algorithm

    def nodes(self) -> Iterator[Node]:
        """Yield every node, the root first, in no order to rely on; one that has several names comes for each."""
        directories = [self.root]
        yield self.root
        for directory in directories:
            for node in (directory.children or {}).values():
                if node.children is not None:
                    directories.append(node)
                yield node

    def objects(self) -> dict[str, int]:
        """Return the ids of the objects that an image of this tree refers to, each with the size of such a file."""
        return {node.digest.hex(): node.size for node in self.nodes() if node.digest is not None and node.external}


def sort_children(directory: Node, children: dict[bytes, Node]) -> None:
    """Make ``children`` the directory's children, in name order."""
    names = sorted(children)
    # Most sources are sorted already; then the dictionary can stay.
    directory.children = children if names == list(children) else {name: children[name] for name in names}


def find(tree: Tree, path: bytes) -> Node:
    """Return the node at a path; raise NotFoundError."""
    node = tree.root
    for name in filter(None, path.split(b"/")):
        if node.children is None or name not in node.children:
            raise NotFoundError(f"{shown(path)} not found")
        node = node.children[name]
    return node


def walk(top: Node) -> Iterator[tuple[bytes, Node, bytes, Node]]:
    """Yield (path, directory, name, node) for each name below a directory, parents first, in name order.

    The path is that from there, and starts with a slash.  A hard link group is met once for each of its names.  The
    depth of a tree is not bounded, so neither is this a recursive function nor may its consumers be.
    """
    prefix = b"/"
    stack = [(len(prefix), top, iter((top.children or {}).items()))]
    while stack:
        # Of the directories above only the lengths are kept: their paths take gigabytes in a tree that is deep.
        length, directory, names = stack[-1]
        prefix = prefix[:length]
        for name, node in names:
            path = prefix + name
            yield path, directory, name, node
            if node.children is not None:
                prefix = path + b"/"
                stack.append((len(prefix), node, iter(node.children.items())))
                break
        else:
            stack.pop()


@contextmanager
def collection_paused() -> Iterator[None]:
    """Keep the cyclic garbage collector off while a large tree is built or written.

    It would look again and again at a growing heap in which nothing is garbage: half of the time of the whole work.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
