"""From an image to the tree that it was made of.

Two programs' ways of reading are known here (`ReadRules`); `composefs.erofs.reader.attributes` has their ways with
attributes.

==================  ===============================  ========================================================
                    libcomposefs                     composefs-rs
==================  ===============================  ========================================================
0:0 device          dropped anywhere                 formats 0 and 1: dropped in the root if its name is 00 to ff
links of a file     as the image says                must be the number of its names
metacopy            a digest if of a digest's size   must be well-formed, unless it is empty
==================  ===============================  ========================================================

What is dropped are the stubs that the image writer adds to the root.  composefs-rs 0.9.0 loses the user's whiteouts in
the root with such names as well; that is not repeated.  Neither is libcomposefs' way to read on behind the end of some
redirects, nor its blindness for sha512; nor that both take a file that has bytes for a whiteout if it is marked as one,
for what is mounted has the file.
"""

from __future__ import annotations

import stat
from typing import Literal, NamedTuple

from composefs.digest import ALGORITHMS, SHA256, Algorithm
from composefs.erofs.layout import CHUNK_BASED, SLOT, WHITEOUT_VERSIONS
from composefs.erofs.overlay import STUB_NAMES
from composefs.erofs.reader.attributes import AttributeReader, SharedAttributes
from composefs.erofs.reader.image import Image, Inode, malformed
from composefs.erofs.reader.walk import Walk
from composefs.erofs.xattrs import METACOPY_HEAD_SIZE, OVERLAY, metacopy_head
from composefs.tree import MAX_CONTENT, MAX_TARGET, TYPE_MASK, Node, Tree, collection_paused, walk

__all__ = ["Decoder", "ReadRules", "read_below", "read_tree"]

HEADS = {metacopy_head(each): each for each in ALGORITHMS.values()}
BY_SIZE = {METACOPY_HEAD_SIZE + each.size: each for each in ALGORITHMS.values()}


class ReadRules(NamedTuple):
    """How an image is to be read.

    ``compat``: whose way.  ``algorithm``: that of the digests; None: the first digest decides.
    """

    compat: Literal["rs", "c"] = "rs"
    algorithm: Algorithm | None = None


def read_tree(image: Image, rules: ReadRules = ReadRules()) -> Tree:
    """Return the tree of an image.

    A directory's ``size`` is that of its entries in the image, and every ``nlink`` is the image's.  Raises FormatError
    with the offset of what is wrong; digests of another algorithm than the rules' are wrong too.
    """
    decoder = Decoder(image, rules)
    root = read_below(decoder, image.root_nid)
    if root.children is None:
        malformed("the root is not a directory", image.inode(image.root_nid).offset)
    return Tree(root, decoder.algorithm or SHA256)


class Decoder:
    """Makes nodes of inodes, one by one."""

    def __init__(self, image: Image, rules: ReadRules) -> None:
        self.image = image
        self.c = rules.compat == "c"
        self.algorithm = rules.algorithm
        self._head, self._metacopy_size = b"", 0
        shared = SharedAttributes(image)
        self.regular = AttributeReader(image, shared, regular=True, c=self.c)
        self._others = AttributeReader(image, shared, regular=False, c=self.c)

    def node(self, inode: Inode) -> tuple[Node, int]:
        """Return the node of an inode, a directory without its children, and the bytes of attributes it shares."""
        _, layout, mode, nlink, uid, gid, mtime, size, place, _, _, _ = inode
        kind = mode & TYPE_MASK
        if kind == stat.S_IFREG:
            (xattrs, whiteout, shared), metacopy, redirect = self.regular.of(inode)
            if whiteout is not None:
                if not size:
                    return Node(mode ^ stat.S_IFREG ^ stat.S_IFCHR, nlink, uid, gid, 0, mtime, xattrs=xattrs), shared
                xattrs = {**xattrs, OVERLAY + b"whiteout": whiteout}
            path = redirect_path(redirect, inode) if redirect else None
            content = self.image.content(inode, MAX_CONTENT) if size and layout != CHUNK_BASED else None
            digest = self.digest(metacopy, inode) if metacopy else None
            return Node(mode, nlink, uid, gid, 0, mtime, size, path, content, digest, xattrs), shared
        (xattrs, _, shared), _, _ = self._others.of(inode)
        node = Node(mode, nlink, uid, gid, 0, mtime, xattrs=xattrs)
        if kind == stat.S_IFDIR:
            node.size = size
            node.children = {}
        elif kind == stat.S_IFLNK:
            node.size = size
            node.payload = target = self.image.content(inode, MAX_TARGET)
            if not target or 0 in target:
                malformed("the target of a symlink is empty or has a NUL", inode.offset)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            node.rdev = place
        return node, shared

    def digest(self, metacopy: bytes, inode: Inode) -> bytes | None:
        """Return the digest in a metacopy attribute, or None where libcomposefs sees none."""
        if metacopy[:METACOPY_HEAD_SIZE] == self._head and len(metacopy) == self._metacopy_size:
            return metacopy[METACOPY_HEAD_SIZE:]
        algorithm = BY_SIZE.get(len(metacopy))
        if self.c and algorithm is None:
            return None
        if algorithm is None or not (self.c or HEADS.get(metacopy[:METACOPY_HEAD_SIZE]) is algorithm):
            malformed("a metacopy attribute that holds no digest", inode.offset)
        if self.algorithm is None:
            self.algorithm = algorithm
        if algorithm is not self.algorithm:
            malformed(f"a {algorithm} digest among {self.algorithm} digests", inode.offset)
        # The next ones are surely the same.
        self._head, self._metacopy_size = metacopy[:METACOPY_HEAD_SIZE], len(metacopy)
        return metacopy[METACOPY_HEAD_SIZE:]

    def dropped(self, inode: Inode, name: bytes, *, in_root: bool) -> bool:
        """Tell whether a file is none of the tree's, but one that the image writer added."""
        if inode.mode & TYPE_MASK != stat.S_IFCHR or inode.place:
            return False
        if self.c:
            if inode.nlink > 1:
                malformed("a 0:0 device with more than one link", inode.offset)
            return True
        return in_root and name in STUB_NAMES and self.image.version in WHITEOUT_VERSIONS


def redirect_path(redirect: bytes, inode: Inode) -> bytes:
    """Return the path in the object store that a redirect attribute gives."""
    path = redirect[1:] if len(redirect) > 1 and redirect[0] == 0x2F else redirect
    if len(path) > MAX_TARGET or 0 in path:
        malformed("a redirect attribute that is too long or has a NUL", inode.offset)
    return path


@collection_paused()
def read_below(decoder: Decoder, nid: int, path_length: int = 0) -> Node:
    """Return a node and, if it is a directory, all that is below it; ``path_length`` is that of its own path.

    Where this is the root of the image, links are counted if the rules ask for it.
    """
    image = decoder.image
    inode = image.inode(nid)
    root, _ = decoder.node(inode)
    if root.children is None:
        return root
    nodes: dict[int, Node | None] = {nid: root}  # By nid; None is what was dropped.
    links: dict[int, int] = {}  # Names of what has more than one.
    steps = Walk(image)
    decode, dropped = decoder.node, decoder.dropped
    for directory_nid, names, nids, inodes in steps.directories(nid, inode, path_length):
        directory = nodes[directory_nid]
        assert directory is not None
        assert directory.children is not None
        children = directory.children
        in_root = directory_nid == image.root_nid
        written = 0
        for name, child_nid, child in zip(names, nids, inodes, strict=True):
            node: Node | None
            if child is None:
                links[child_nid] = links.get(child_nid, 1) + 1
                node = nodes[child_nid]
                if node is None:
                    continue
                node.home = directory, name  # The right one is found when all are there.
            elif child.mode & TYPE_MASK == stat.S_IFCHR and dropped(child, name, in_root=in_root):
                nodes[child_nid] = None
                continue
            else:
                node, shared = decode(child)
                nodes[child_nid] = node
                written += shared
            children[name] = node
        steps.expand(written, image.meta_start + directory_nid * SLOT)
    if links:
        _set_homes(root)
    if not decoder.c and nid == image.root_nid:
        _check_links(image, nodes, links)
    return root


def _set_homes(root: Node) -> None:
    """Make the first name, depth first, the real one of each hard link group."""
    done: set[int] = set()
    for _, directory, name, node in walk(root):
        if node.home is not None and id(node) not in done:
            done.add(id(node))
            node.home = directory, name


def _check_links(image: Image, nodes: dict[int, Node | None], links: dict[int, int]) -> None:
    for nid, node in nodes.items():
        if node is not None and node.children is None and node.nlink != links.get(nid, 1):
            malformed(f"a file with {links.get(nid, 1)} names has {node.nlink} links", image.meta_start + nid * SLOT)
