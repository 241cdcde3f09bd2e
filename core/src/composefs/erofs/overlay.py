"""From a tree to the inodes of an image, rewritten so that overlayfs shows the tree that was meant.

An image is mounted as overlayfs' metadata layer.  So external files get the attributes metacopy (their digest) and
redirect (their path in the object store); attributes that overlayfs would obey are escaped; and in formats 0 and 1

* a whiteout, a 0:0 device, becomes an empty file that is marked as one, because a real one would hide itself;
* the root is opaque and has 0:0 devices named 00 to ff, which hide the object store's directories of these names.

The two writers of such images, libcomposefs and composefs-rs, agree on the bytes except in the points that
`WriteRules` lists.  Format 2 is composefs-rs' own: no whiteout rewriting, other order.
"""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from composefs.erofs.layout import FILE_TYPES, MAX_CHUNK_BITS, MAX_CHUNKS, MIN_CHUNK_BITS, WHITEOUT_VERSIONS
from composefs.erofs.unfit import Unfit
from composefs.erofs.xattrs import ESCAPED, OVERLAY, AttributeSet, AttributeSets
from composefs.errors import FormatError
from composefs.tree import MAX_CONTENT, MAX_NAME, MAX_TARGET, NO_XATTRS, TYPE_MASK, Node, Tree, object_path

__all__ = [
    "OPAQUE",
    "STUB_NAMES",
    "WHITEOUT",
    "WHITEOUT_MARK",
    "WHITEOUT_PARENT",
    "Inode",
    "WriteRules",
    "rewrite",
]

SELINUX = b"security.selinux"
STUB_NAMES = frozenset([b"%02x" % number for number in range(256)])
STUB_MODE = stat.S_IFCHR | 0o644

WHITEOUT_MARK = ESCAPED + b"whiteout"
WHITEOUT = {WHITEOUT_MARK: b"", b"user.overlay.whiteout": b""}
WHITEOUT_PARENT = {ESCAPED + b"whiteouts": b"", b"user.overlay.whiteouts": b""}
OPAQUE = {ESCAPED + b"opaque": b"x", b"user.overlay.opaque": b"x"}
ROOT_OPAQUE = {OVERLAY + b"opaque": b"y"}
"""What is added in WHITEOUT_VERSIONS.  The escaped form is what a nested overlayfs reads."""


class WriteRules(NamedTuple):
    """How an image is to be written: in the EROFS format ``version``, 0 to 2.

    ``c`` asks for libcomposefs' bytes instead of composefs-rs':

    ==========================  ====================================  ===========================================
                                libcomposefs                          composefs-rs
    ==========================  ====================================  ===========================================
    links of a file             what the node says                    names in the tree
    place of a hard link group  at the node's real name               at the first name, depth first
    references to attributes    at most 128 an inode                  as many as the field can count
    smallest time               signed                                unsigned: before 1970 is last
    redirect                    the node's payload                    made from the digest, where there is one
    stub of its own             becomes a whiteout                    a device in the root like a stub stays one
    ==========================  ====================================  ===========================================
    """

    version: int
    c: bool


class Inode:
    """One inode of the image.

    ``node`` gives owner, time, device and size.  ``names`` and ``targets`` are a directory's entries with ``.`` and
    ``..``, in order; only a directory has a ``parent``.  ``data`` is a symlink's target or an inline file's content.
    ``chunk_bits`` is not 0 for an external file, and then ``digest`` and ``redirect``, a path without its slash, are
    for the attributes that ``xattrs`` does not hold yet.

    `composefs.erofs.placement` fills in the rest.  ``head`` is the inode's own structure, without the number of its
    first block of data, which is counted from the first one of all in ``first_block`` if there are ``blocks``.
    ``padding`` is what comes before the inode, ``tail`` the bytes of data behind its attributes, ``groups`` the entries
    of each block of a directory that has several.
    """

    node: Node
    mode: int
    file_type: int
    nlink: int
    xattrs: AttributeSet
    parent: Inode
    names: list[bytes] | None
    targets: list[Inode]
    data: bytes | None
    chunk_bits: int
    digest: bytes | None
    redirect: bytes | None
    nid: int
    padding: int
    head: bytes
    tail: int
    blocks: int
    first_block: int
    groups: list[tuple[int, int]] | None

    __slots__ = tuple(__annotations__)

    def __init__(self, node: Node, file_type: int) -> None:
        self.node = node
        self.mode = node.mode
        self.file_type = file_type
        self.nlink = node.nlink
        self.names = None
        self.data = None
        self.chunk_bits = 0
        self.redirect = None


def rewrite(tree: Tree, rules: WriteRules) -> tuple[list[Inode], AttributeSets]:
    """Make the inodes of a tree, in the order of their numbers, and its attribute sets, what is shared being decided.

    The tree is not changed.  Raises Unfit for what an image cannot hold.
    """
    return _Rewriter(tree, rules).run()


class _Rewriter:
    def __init__(self, tree: Tree, rules: WriteRules) -> None:
        self.root = tree.root
        self.rules = rules
        self.c = rules.c
        self.whiteouts = rules.version in WHITEOUT_VERSIONS
        self.xattrs = AttributeSets(tree.algorithm, version=rules.version, c_rules=rules.c)
        self.externals: list[Inode] = []
        self.homes, self.links = ({}, {}) if rules.c else _first_names(tree.root)
        self.real: dict[int, Inode] = {}  # The inodes of hard link groups, by id of the node.
        self.unresolved: list[tuple[Inode, bytes, Node]] = []  # Directory, name, node.
        root = tree.root
        label = {SELINUX: root.xattrs[SELINUX]} if SELINUX in root.xattrs else NO_XATTRS
        self.stub = Node(STUB_MODE, 1, root.uid, root.gid, 0, root.mtime, xattrs=label)

    def run(self) -> tuple[list[Inode], AttributeSets]:
        root = Inode(self.root, FILE_TYPES[stat.S_IFDIR])
        root.parent = root
        inodes = []
        if self.rules.version == 2:
            pending = [root]
            while pending:  # Depth first.
                inode = pending.pop()
                inodes.append(inode)
                if inode.node.children is not None:
                    pending += reversed(self.expand(inode))
        else:
            inodes.append(root)
            for inode in inodes:  # Breadth first: the list grows meanwhile.
                if inode.node.children is not None:
                    inodes += self.expand(inode)
        for directory, name, node in self.unresolved:
            target = self.real.get(id(node))
            if target is None:
                raise Unfit(node, "the target of the hard link is not in the tree", kind=FormatError)
            assert directory.names is not None
            directory.targets[bisect_left(directory.names, name)] = target
        self.xattrs.share(self.externals)
        return inodes, self.xattrs

    def expand(self, directory: Inode) -> list[Inode]:
        """Fill in a directory's entries, links and attributes; return the new inodes in it."""
        node = directory.node
        assert node.children is not None
        children = node.children
        attributes = self.xattrs.of
        root = node is self.root
        if root and self.whiteouts:
            stubs = {name: self.stub for name in STUB_NAMES if name not in children}
            children = dict(sorted((children | stubs).items()))
        new = []
        targets = []
        directories = 0
        marked = False
        for name, child in children.items():
            home = child.home
            if home is not None and not self.is_home(child, node, name):
                if child.children is not None:
                    raise Unfit(child, "a hard link to a directory", kind=FormatError)
                self.unresolved.append((directory, name, child))
                targets.append(directory)  # Its place, until all inodes are there.
                continue
            kind = child.mode & TYPE_MASK
            inode = Inode(child, FILE_TYPES.get(kind, 0))
            if kind == stat.S_IFREG:
                inode.xattrs = attributes(child.xattrs)
                self.regular(inode, child)
            elif kind == stat.S_IFDIR:
                directories += 1
                inode.parent = directory
            elif kind == stat.S_IFCHR and self.is_whiteout(child, name if root else b""):
                inode.mode ^= stat.S_IFCHR ^ stat.S_IFREG
                inode.file_type = FILE_TYPES[stat.S_IFREG]
                inode.xattrs = self.xattrs.of(child.xattrs, WHITEOUT)
                marked = True
            else:
                inode.xattrs = self.xattrs.of(child.xattrs)
                if kind == stat.S_IFLNK:
                    inode.data = child.payload
                    if not child.payload or len(child.payload) > MAX_TARGET:
                        raise Unfit(child, f"a symlink's target that has not 1 to {MAX_TARGET} bytes")
                elif not inode.file_type:
                    raise Unfit(child, f"an unknown file type, mode {child.mode:o}", kind=FormatError)
            if home is not None:
                self.real[id(child)] = inode
                inode.nlink = self.links.get(id(child), child.nlink)
                if not self.c and kind == stat.S_IFCHR and not child.rdev and inode.nlink > 1:
                    message = f"the whiteout has {inode.nlink} names; a whiteout has one"
                    raise Unfit(child, message, hint="make each of them a device of its own", kind=FormatError)
            elif not self.c:
                inode.nlink = 1
            targets.append(inode)
            new.append(inode)
        self.finish(directory, list(children), targets, marked=marked)
        directory.nlink = 2 + directories
        return new

    def finish(self, directory: Inode, names: list[bytes], targets: list[Inode], *, marked: bool) -> None:
        """Add ``.`` and ``..`` and the attributes that depend on what is inside."""
        if max(map(len, names), default=0) > MAX_NAME or (names and not names[0]):
            raise Unfit(directory.node, f"a file name in it has not 1 to {MAX_NAME} bytes")
        for name, target in ((b".", directory), (b"..", directory.parent)):
            place = bisect_left(names, name)
            names.insert(place, name)
            targets.insert(place, target)
        directory.names = names
        directory.targets = targets
        extra = {}
        if marked:
            extra = WHITEOUT_PARENT | OPAQUE if self.rules.version >= 1 else WHITEOUT_PARENT
        if self.whiteouts and directory.node is self.root:
            extra = extra | ROOT_OPAQUE
        directory.xattrs = self.xattrs.of(directory.node.xattrs, extra or None)

    def is_home(self, node: Node, directory: Node, name: bytes) -> bool:
        """Whether this name of a hard link group is the one that decides the inode's place."""
        home = node.home if self.c else self.homes[id(node)]
        assert home is not None
        return home[0] is directory and home[1] == name

    def is_whiteout(self, node: Node, root_name: bytes) -> bool:
        """Whether a character device is a whiteout to convert; ``root_name`` is its name, if it is in the root."""
        if node.rdev or not self.whiteouts or node is self.stub:
            return False
        if self.c or root_name not in STUB_NAMES:
            return True
        return not _is_same_device(node, self.stub)

    def regular(self, inode: Inode, node: Node) -> None:
        """Fill in what a regular file has: nothing, content, or the way to its object."""
        if node.content:
            inode.data = node.content
            if len(node.content) > MAX_CONTENT:
                raise Unfit(node, f"an inline file has {len(node.content)} bytes, more than {MAX_CONTENT}")
        elif node.size:
            size = node.size
            if not self.whiteouts or size > 1 << MAX_CHUNK_BITS:
                inode.chunk_bits = MAX_CHUNK_BITS
                if size > MAX_CHUNKS << MAX_CHUNK_BITS:
                    raise Unfit(node, f"a file has {size} bytes, more than 2^53")
            else:
                inode.chunk_bits = (size - 1).bit_length() if size > 1 << MIN_CHUNK_BITS else MIN_CHUNK_BITS
            inode.digest = digest = node.digest
            inode.redirect = node.payload or None
            if digest is not None and not self.c:
                path = object_path(digest)
                if path != node.payload:  # else the one that is there, for memory
                    inode.redirect = path
            self.externals.append(inode)


def _is_same_device(one: Node, other: Node) -> bool:
    return (one.mode, one.uid, one.gid, one.mtime) == (other.mode, other.uid, other.gid, other.mtime) and (
        dict(one.xattrs) == dict(other.xattrs)
    )


def _first_names(root: Node) -> tuple[dict[int, tuple[Node, bytes]], dict[int, int]]:
    """Return the first name, depth first, and the number of names of each hard link group, by id of the node."""
    first: dict[int, tuple[Node, bytes]] = {}
    count: dict[int, int] = {}
    stack: list[tuple[Node, Iterator[tuple[bytes, Node]]]] = [(root, iter((root.children or {}).items()))]
    while stack:
        directory, names = stack[-1]
        for name, node in names:
            if node.home is not None:
                first.setdefault(id(node), (directory, name))
                count[id(node)] = count.get(id(node), 0) + 1
            if node.children is not None:
                stack.append((node, iter(node.children.items())))
                break
        else:
            stack.pop()
    return first, count
