"""erofs-utils reads our images back: names, symlinks, inline files, hard links, attributes, at the edges of the layout.

The edges are those of placement: tails that would cross a block, symlinks that nearly fill one, directories whose last
block is just too full for a tail.  fsck.erofs extracts the image, and the extracted directory must be the tree.
"""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from composefs import erofs
from composefs.digest import SHA256
from composefs.scan import ScanOptions, scan_directory
from composefs.tree import Node, Tree, sort_children, walk
from support import peers
from support.commands import run

CONTENT_SIZES = (1, 64, 2047, 2048, 2049, 4031, 4032, 4033, 4095, 4096, 4097, 5000)
TARGET_SIZES = (1, 100, 2048, 3900, 3960, 3999, 4000, 4031, 4032, 4033, 4063, 4064, 4065, 4095)
DIRECTORY_SIZES = (2047, 2048, 2049, 4095, 4096, 4097, 6144, 6145, 8192, 8193, 20000)


def directory_of_size(size: int) -> Node:
    """A directory whose entries take exactly ``size`` bytes if they fit one block, or about that."""
    left = size - (12 + 1) - (12 + 2)
    children: dict[bytes, Node] = {}
    while left > 0:
        length = left - 12 if left <= 12 + 200 else 100
        if length < 8:
            break
        name = b"%08d" % len(children)
        children[name.ljust(length, b"n")] = Node(0o100600, mtime=(1, 0))
        left -= 12 + length
    return Node(0o40755, mtime=(2, 0), children=children)


def edge_tree(seed: int, version: int) -> Tree:
    """All edges, in an order and with attributes that the seed decides, so that they meet different offsets.

    No attribute is empty: fsck.erofs 1.8 fails to extract those.
    """
    rng = random.Random(seed)
    nodes: list[tuple[bytes, Node]] = []
    for size in CONTENT_SIZES:
        content = rng.randbytes(size)
        nodes.append((b"content%d" % size, Node(0o100644, size=size, content=content, mtime=(rng.randrange(3), 0))))
    for size in TARGET_SIZES[: -2 if version == 2 else None]:  # 4065 bytes are too many for format 2.
        target = b"t" * (size - 1) + b"e"
        nodes.append((b"link%d" % size, Node(0o120777, size=size, payload=target, mtime=(rng.randrange(3), 0))))
    nodes += [(b"dir%d" % size, directory_of_size(size)) for size in DIRECTORY_SIZES]
    nodes += [(b"fifo", Node(0o10600)), (b"device", Node(0o60600, rdev=0x812))]
    for _, node in nodes:
        count = rng.choice([0, 0, 1, 2, 40])
        if stat.S_ISLNK(node.mode) or count == 0:
            continue
        node.xattrs = {b"trusted.k%d" % rng.randrange(60): rng.randbytes(rng.choice([1, 2, 30])) for _ in range(count)}
    root = Node(0o40755, children={})
    inner = Node(0o40711, uid=70000, gid=5, mtime=(3, 0), children={})
    rng.shuffle(nodes)
    children: tuple[dict[bytes, Node], dict[bytes, Node]] = ({}, {b"inner": inner})
    for number, (name, node) in enumerate(nodes):
        children[number % 2][b"%d-%b" % (rng.randrange(10), name)] = node
    first = next(node for node in children[1].values() if node.content)
    name = next(name for name, node in children[1].items() if node is first)
    first.home = root, name
    children[0][b"hard link"] = first
    sort_children(inner, children[0])
    sort_children(root, children[1])
    return Tree(root, SHA256)


def facts(tree: Tree, version: int) -> dict[bytes, tuple[object, ...]]:
    """What must survive, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    groups: dict[int, bytes] = {}
    for path, _, name, node in walk(tree.root):
        if version < 2 and stat.S_ISCHR(node.mode) and not node.rdev and len(name) == 2:
            continue  # one of the root's stubs
        kept = {name: value for name, value in node.xattrs.items() if not name.startswith(b"security.")}
        found[path] = (
            node.mode, node.uid, node.gid, node.rdev, node.payload if stat.S_ISLNK(node.mode) else node.content,
            node.mtime, kept, groups.setdefault(id(node), path),
        )  # fmt: skip
    return found


@pytest.mark.root
@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_an_extracted_image_is_the_tree(seed: int, version: int, tmp_path: Path) -> None:
    assert os.geteuid() == 0, "owners, devices and trusted attributes need root"
    peers.require("fsck.erofs")
    tree = edge_tree(seed, version)
    image = tmp_path / "image"
    image.write_bytes(b"".join(erofs.write(tree, version=version)))
    run("fsck.erofs", f"--extract={tmp_path / 'out'}", "--preserve", "--xattrs", image)
    out = tmp_path / "out"
    again = scan_directory(out, SHA256, options=ScanOptions(), store=None)
    # Files of more than 64 bytes are external for the scanner; here they were inline.
    for path, _, _, node in walk(again.root):
        if stat.S_ISREG(node.mode) and node.size:
            node.content = (out / os.fsdecode(path[1:])).read_bytes()
    assert facts(again, version) == facts(tree, version)
