"""Random directories with everything that a file system can hold, the same for the same seed."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

_DIRECTORIES = 40
_WORDS = ("apple", "blue", "castle", "deer", "egg", "fern", "gold", "harp", "iron", "jam", "kite", "lamp")
_TIME = 1_700_000_000


class _Maker:
    def __init__(self, seed: int, *, odd_names: bool, devices: bool, whiteouts: bool) -> None:
        self.chooser = random.Random(seed)
        self.odd_names = odd_names
        self.devices = devices
        self.whiteouts = whiteouts
        self.contents: list[bytes] = []
        self.files: list[bytes] = []

    def name(self) -> bytes:
        if not self.odd_names:
            return f"{self.chooser.choice(_WORDS)}-{self.chooser.randrange(10_000)}".encode()
        length = self.chooser.choice((1, 2, 20, 200, 255))
        # A byte each, but for NUL and the slash; a name of dots would be a directory's own.
        return bytes(self.chooser.choice([*range(1, 47), *range(48, 256)]) for _ in range(length)).replace(b".", b"_")

    def content(self) -> bytes:
        if self.contents and self.chooser.randrange(20) == 0:
            return self.chooser.choice(self.contents)
        size = self.chooser.randrange(1 << 20) if self.chooser.randrange(20) == 0 else self.chooser.randrange(256)
        self.contents.append(self.chooser.randbytes(size))
        return self.contents[-1]

    def attributes(self, path: bytes) -> None:
        for _ in range(self.chooser.randrange(3)):
            name = f"user.{self.chooser.choice(_WORDS)}{self.chooser.randrange(9)}"
            os.setxattr(path, name, self.chooser.choice(_WORDS).encode())

    def entry(self, path: bytes) -> None:
        kind = self.chooser.randrange(100)
        mode = self.chooser.choice((0o644, 0o666, 0o755, 0o4711))
        if kind < 10:
            os.symlink(self.name(), path)
        elif kind < 15:
            os.mkfifo(path, mode)
        elif kind < 20 and self.files:
            os.link(self.chooser.choice(self.files), path)
            return
        elif kind < 25 and self.devices:
            numbers = os.makedev(self.chooser.randrange(1, 255), self.chooser.randrange(1, 255))
            os.mknod(path, mode | self.chooser.choice((stat.S_IFCHR, stat.S_IFBLK)), numbers)
        elif kind < 30 and self.whiteouts:
            os.mknod(path, mode | stat.S_IFCHR, 0)
        else:
            Path(os.fsdecode(path)).write_bytes(self.content())
            os.chmod(path, mode)
            self.attributes(path)
            self.files.append(path)
        os.utime(path, (_TIME, _TIME - self.chooser.randrange(1000)), follow_symlinks=False)

    def directory(self, path: bytes) -> None:
        os.mkdir(path, 0o700)
        os.chmod(path, self.chooser.choice((0o777, 0o755, 0o1750, 0o700)))
        self.attributes(path)
        crowded = self.chooser.randrange(20) == 0
        for name in sorted({self.name() for _ in range(self.chooser.randrange(600 if crowded else 25))}):
            self.entry(path + b"/" + name)


def random_tree(
    seed: int, path: Path, *, odd_names: bool = False, devices: bool = False, whiteouts: bool = False
) -> Path:
    """Make a directory; device nodes and whiteouts, which are device nodes too, can be made by root only."""
    maker = _Maker(seed, odd_names=odd_names, devices=devices, whiteouts=whiteouts)
    directories = [os.fsencode(path)]
    maker.directory(directories[0])
    for _ in range(_DIRECTORIES):
        # Not too deep: names of 255 bytes fill a path soon.
        parent = maker.chooser.choice([each for each in directories if len(each) < 2000])
        made = parent + b"/" + b"d" + maker.name()[:200]
        if not os.path.lexists(made):
            maker.directory(made)
            directories.append(made)
    for directory in reversed(directories):
        os.utime(directory, (_TIME, _TIME))
    return path


def shown(top: Path, *, links: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Return all that can be seen of a tree, but sizes of directories and link counts of these.

    ``links`` False leaves out the link counts of files, for images that give every name a file of its own.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    root = os.fsencode(top)
    pending = [b""]
    while pending:
        relative = pending.pop()
        path = root + relative
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        content: object = None
        if kind == stat.S_IFREG:
            content = Path(os.fsdecode(path)).read_bytes()
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind == stat.S_IFDIR:
            pending += [relative + b"/" + name for name in os.listdir(path)]
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        count = status.st_nlink if links and kind != stat.S_IFDIR else None
        found[relative] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_rdev, status.st_mtime_ns, count, content, attributes
        )  # fmt: skip
    return found
