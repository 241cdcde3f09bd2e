"""Images that other people's programs make: umoci, buildah and podman, each with storage of its own.

All are made from the files of :func:`fill` and changed by :func:`change`, so that each has a second layer with
whiteouts, replaced files and new metadata.  Root makes them: owners, devices and file capabilities are the point.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from support.commands import run
from support.peers import require

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw, permitted and effective."""
_TIME = 1_600_000_000


def fill(root: Path) -> None:
    """Put a small system into a directory: every kind of file, odd names, owners, modes, times, attributes."""
    assert os.geteuid() == 0, "owners, devices and attributes need root"
    for path, mode in (("usr", 0o755), ("usr/bin", 0o2755), ("usr/lib", 0o700), ("run", 0o755), ("tmp", 0o1777)):
        (root / path).mkdir()
        (root / path).chmod(mode)
    for size in (0, 1, 64, 65, 512, 4096, 70_001):
        (root / f"usr/bin/size{size}").write_bytes(os.urandom(size))
    (root / "usr/bin/size512").chmod(0o4711)
    os.chown(root / "usr/bin/size65", 1000, 100)
    os.chown(root / "usr/bin/size1", 3_000_000, 2_999_999)  # more than the digits of a header can tell
    os.link(root / "usr/bin/size65", root / "usr/hard")
    os.link(root / "usr/bin/size65", root / "usr/lib/harder")
    os.symlink("bin/size1", root / "usr/link")
    os.symlink("/no/where", root / "usr/dangling")
    os.chown(root / "usr/link", 7, 8, follow_symlinks=False)
    os.mkfifo(root / "usr/fifo", 0o640)
    os.mknod(root / "usr/null", 0o020666, os.makedev(1, 3))
    (root / "run/volatile").write_bytes(b"gone in the image")
    for number in range(3):
        (root / f"usr/lib/old{number}").mkdir()
        (root / f"usr/lib/old{number}/file").write_bytes(b"old" * 50)
    for name in ("n" * 200, "w" * 255, "\u00fc\u4e2d", " a b", "new\nline"):
        (root / "usr/lib" / name).write_bytes(name.encode() * 3)
    deep = root / "usr/lib" / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / "deep").write_bytes(b"deep" * 20)
    os.setxattr(root / "usr/bin/size4096", "security.capability", CAPABILITY)
    os.setxattr(root / "usr/bin/size1", "user.note", b"some text")
    os.setxattr(root / "usr/lib", "user.directory", b"\xff\x01")
    _set_times(root, _TIME)


def change(root: Path) -> None:
    """Do to it what makes each kind of entry in a second layer."""
    (root / "usr/bin/size64").unlink()
    (root / "usr/lib" / ("w" * 255)).unlink()  # a whiteout with a longer name than a file can have
    shutil.rmtree(root / "usr/lib/old0")
    shutil.rmtree(root / "usr/lib/old1")
    (root / "usr/lib/old1").write_bytes(b"a file where a directory was" * 9)
    (root / "usr/link").unlink()
    (root / "usr/link").mkdir()
    (root / "usr/link/in").write_bytes(b"a directory where a symlink was")
    (root / "usr/bin/size70001").write_bytes(b"shorter" * 100)
    (root / "usr/bin").chmod(0o755)
    os.chown(root / "usr/bin/size512", 5, 6)
    (root / "usr/fifo").unlink()
    os.symlink("null", root / "usr/fifo")
    (root / "usr/new").mkdir()
    (root / "usr/new/file").write_bytes(os.urandom(1000))
    _set_times(root / "usr/new", _TIME + 1000)
    _set_times(root / "usr/link", _TIME + 2000)


def _set_times(root: Path, start: int) -> None:
    for number, path in enumerate([*sorted(root.rglob("*"), reverse=True), root]):
        os.utime(path, (start + number, start + number), follow_symlinks=False)


class Umoci:
    """Images in a layout."""

    def __init__(self, layout: Path) -> None:
        self.layout = layout
        self._umoci = require("umoci")
        run(self._umoci, "init", "--layout", layout)

    def new(self, tag: str) -> None:
        """Begin an image without layers."""
        run(self._umoci, "new", "--image", f"{self.layout}:{tag}")

    def unpack(self, tag: str, bundle: Path) -> Path:
        """Unpack an image; return the root directory in its bundle."""
        return unpack(f"{self.layout}:{tag}", bundle)

    def repack(self, tag: str, bundle: Path) -> None:
        """Make a layer of what has changed in a bundle."""
        run(self._umoci, "repack", "--image", f"{self.layout}:{tag}", bundle)

    def insert(self, tag: str, source: Path, target: str, *options: str) -> None:
        """Make a layer of a directory; with --opaque it hides what was there."""
        run(self._umoci, "insert", *options, "--image", f"{self.layout}:{tag}", source, target)

    def config(self, tag: str, new: str, *options: str) -> None:
        """Give an image another config and tag."""
        run(self._umoci, "config", "--image", f"{self.layout}:{tag}", "--tag", new, *options)


def unpack(image: str, bundle: Path) -> Path:
    """Unpack an image of a layout, PATH:TAG, with umoci; return the root directory in the bundle."""
    run(require("umoci"), "unpack", "--image", image, bundle)
    return bundle / "rootfs"


class Containers:
    """buildah and podman, with storage below a directory."""

    def __init__(self, directory: Path) -> None:
        (directory / "run").mkdir(parents=True, mode=0o700)
        (directory / "storage.conf").write_text(
            f'[storage]\ndriver="vfs"\nrunroot="{directory}/runroot"\ngraphroot="{directory}/graph"\n'
        )
        self._env = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(directory / "storage.conf"),
            "STORAGE_DRIVER": "vfs",
            "XDG_RUNTIME_DIR": str(directory / "run"),
        }

    def buildah(self, *arguments: str | Path) -> str:
        """Run buildah; return what it says, without the end of the line."""
        return run(require("buildah"), *arguments, env=self._env).stdout.strip()

    def podman(self, *arguments: str | Path) -> str:
        """Run podman; return what it says, without the end of the line."""
        return run(require("podman"), *arguments, env=self._env).stdout.strip()
