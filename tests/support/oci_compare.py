"""A pulled image beside a directory that another program unpacked: every inode, name by name."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from composefs import dumpfile
from composefs.digest import SHA256
from composefs.tree import Node
from support.commands import cfsctl

KEPT = ("user.", "security.capability")


class Inode(NamedTuple):
    """What is to be equal; ``names`` are all of its paths, ``content`` is a digest of a regular file's bytes."""

    names: tuple[bytes, ...]
    mode: int
    owner: tuple[int, int]
    mtime: tuple[int, int]
    device: int
    content: str
    target: bytes
    xattrs: dict[str, bytes]


Tree = dict[bytes, Inode]


def of_directory(root: Path) -> Tree:
    """Describe the files of a directory, whose own path is ``/``."""
    names: dict[int, list[bytes]] = {}
    inodes: dict[int, Inode] = {}
    top = os.fsencode(root)
    for path in [top, *(os.fsencode(path) for path in sorted(root.rglob("*")))]:
        info = os.lstat(path)
        names.setdefault(info.st_ino, []).append(path[len(top) :] or b"/")
        kind = stat.S_IFMT(info.st_mode)
        inodes[info.st_ino] = Inode(
            (),
            info.st_mode,
            (info.st_uid, info.st_gid),
            divmod(info.st_mtime_ns, 10**9),
            info.st_rdev,
            hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest() if kind == stat.S_IFREG else "",
            os.readlink(path) if kind == stat.S_IFLNK else b"",
            {
                name: os.getxattr(path, name, follow_symlinks=False)
                for name in os.listxattr(path, follow_symlinks=False)
                if name.startswith(KEPT)
            },
        )
    return _by_name(names, inodes)


def of_image(repo: Path, name: str, *options: str) -> Tree:
    """Describe a pulled image, whose attributes ``user.*`` are kept, with the contents that the repository has."""
    text = cfsctl("--repo", repo, "oci", "dump", "--xattrs=keep-user-xattrs", *options, name).stdout
    tree = dumpfile.parse(text.encode("utf-8", "surrogateescape"), SHA256)
    names: dict[int, list[bytes]] = {}
    inodes: dict[int, Inode] = {}
    pending: list[tuple[bytes, Node]] = [(b"", tree.root)]
    for path, node in pending:
        names.setdefault(id(node), []).append(path or b"/")
        inodes[id(node)] = Inode(
            (),
            node.mode,
            (node.uid, node.gid),
            node.mtime,
            node.rdev,
            _content(repo, node),
            node.payload or b"" if stat.S_ISLNK(node.mode) else b"",
            {os.fsdecode(key): value for key, value in node.xattrs.items()},
        )
        pending += [(path + b"/" + key, below) for key, below in (node.children or {}).items()]
    return _by_name(names, inodes)


def as_image(tree: Tree) -> Tree:
    """Do to a directory's description what is done to a system's image: the root is like /usr, and /run is empty."""
    usr = tree.get(b"/usr")
    if usr is None:
        return tree
    result = {path: inode for path, inode in tree.items() if not path.startswith(b"/run/")}
    result[b"/"] = usr._replace(names=(b"/",))
    if b"/run" in result:
        result[b"/run"] = result[b"/run"]._replace(mtime=usr.mtime)
    return result


def check_same(found: Tree, expected: Tree) -> None:
    """Compare, and tell what differs path by path."""
    assert sorted(found) == sorted(expected)
    different = {
        path: {
            field: (ours, theirs)
            for field, ours, theirs in zip(Inode._fields, found[path], expected[path], strict=True)
            if ours != theirs
        }
        for path in expected
        if found[path] != expected[path]
    }
    assert different == {}


def _by_name(names: dict[int, list[bytes]], inodes: dict[int, Inode]) -> Tree:
    return {
        name: inode._replace(names=tuple(sorted(names[number])))
        for number, inode in inodes.items()
        for name in names[number]
    }


def _content(repo: Path, node: Node) -> str:
    if not stat.S_ISREG(node.mode):
        return ""
    data = node.content or b""
    if node.external:
        assert node.digest is not None
        digest = node.digest.hex()
        data = (repo / "objects" / digest[:2] / digest[2:]).read_bytes()
    assert len(data) == node.size
    return hashlib.sha256(data).hexdigest()
