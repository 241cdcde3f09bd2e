"""The kernel reads the images of all vectors as what they were made of, bare and below an overlay."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256, SHA512
from composefs.tree import Node, Tree, walk
from support.commands import BIN, run
from support.dumps import generate_dump, image_hashes, recorded, row_name
from support.mounts import mounted

pytestmark = pytest.mark.root

ROWS = recorded("images.json")


def images(row: dict[str, Any], tree: Tree) -> Iterator[tuple[int, bytes]]:
    """Yield the images of a row, which are those recorded, with their formats."""
    for key in ("v0", "v1", "v2"):
        if key in row:
            version = int(key[1])
            compat: Literal["c", "rs"] = "rs" if version == 2 or "--algorithm=sha512" in row["flags"] else "c"
            pieces = [*erofs.write(tree, version=version, compat=compat)]
            assert image_hashes(pieces, tree.algorithm) == row[key]
            yield version, b"".join(pieces)


def check_node(path: bytes, node: Node) -> None:
    status = os.lstat(path)
    assert (status.st_mode, status.st_uid, status.st_gid) == (node.mode, node.uid, node.gid)
    seconds, nanoseconds = node.mtime
    # A small inode has the superblock's time, whose nanoseconds Linux does not look at.
    assert divmod(status.st_mtime_ns, 1_000_000_000) in ((seconds, nanoseconds), (seconds, 0))
    if stat.S_ISLNK(node.mode):
        assert os.readlink(path) == node.payload
    elif stat.S_ISREG(node.mode):
        assert status.st_size == node.size
        if node.content:
            with open(path, "rb") as file:
                assert file.read() == node.content
    elif stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
        assert status.st_rdev == node.rdev
    if stat.S_ISREG(node.mode) or stat.S_ISDIR(node.mode):  # Linux shows user.* of nothing else.
        for name, value in node.xattrs.items():
            if name.startswith(b"user.") and not name.startswith(b"user.overlay."):
                assert os.getxattr(path, name) == value


def listed(top: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield what is below a directory, by its path from there and by one that is short enough to be used."""
    for directory, directories, files, fd in os.fwalk(os.fsencode(top)):
        for name in (*directories, *files):
            yield os.path.join(directory, name)[len(os.fsencode(top)) :], b"/proc/self/fd/%d/%b" % (fd, name)


@pytest.mark.parametrize("row", ROWS, ids=row_name)
def test_the_kernel_shows_what_the_dump_says(row: dict[str, Any], tmp_path: Path) -> None:
    algorithm = SHA512 if "--algorithm=sha512" in row["flags"] else SHA256
    tree = dumpfile.parse(generate_dump(row), algorithm)
    nodes = {path: node for path, _, _, node in walk(tree.root) if path != b"/"}
    whiteouts = {path for path, node in nodes.items() if stat.S_ISCHR(node.mode) and not node.rdev}
    image, mountpoint = tmp_path / "image", tmp_path / "mnt"
    mountpoint.mkdir()
    for version, data in images(row, tree):
        image.write_bytes(data)
        # The ACLs of these dumps are random bytes, by which nobody gets in.
        with mounted(mountpoint, "-t", "erofs", "-o", "ro,noacl", str(image)):
            found = set()
            for path, short in listed(mountpoint):
                found.add(path)
                if path in nodes and path not in whiteouts:
                    check_node(short, nodes[path])
            # Formats 0 and 1 have 256 whiteouts in the root that hide the directories of objects.
            stubs = {path for path in found - nodes.keys() if len(path) == 3}
            assert len(stubs) in ((0,) if version == 2 else range(1, 257))
            assert found - stubs == nodes.keys()
        run(BIN / "mount.composefs", "-o", f"basedir={tmp_path}", image, mountpoint)
        try:
            has_acls = any(b"_acl_" in name for node in [tree.root, *nodes.values()] for name in node.xattrs)
            assert has_acls or nodes.keys() - {path for path, _ in listed(mountpoint)} <= whiteouts
        finally:
            subprocess.run(["umount", mountpoint], check=True)
