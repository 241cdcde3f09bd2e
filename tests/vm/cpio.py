"""Write the archive that Linux unpacks as its first file system: cpio in the "new ASCII" form.

An entry is a header of 6 + 13 * 8 characters, all numbers in hex, then the name with a NUL, then the content, each
padded to four bytes; the last entry is called ``TRAILER!!!``.  Archives may be appended to each other (kernel
documentation, driver-api/early-userspace/buffer-format.rst).
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

__all__ = ["Archive"]

_MAGIC = b"070701"


class Archive:
    """An archive being written; names are absolute paths, and everything belongs to root."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._written: set[str] = set()

    def add(self, path: str) -> None:
        """Add a file of this machine under its own path, with every symbolic link that leads there."""
        parts = path.split("/")[1:]
        at = ""
        while parts:
            step = f"{at}/{parts.pop(0)}"
            if step.endswith("/.."):
                at = os.path.dirname(at)
            elif os.path.islink(step):
                target = os.readlink(step)
                self.link(step, target)
                parts = target.strip("/").split("/") + parts
                at = "" if target.startswith("/") else at
            else:
                at = step
        status = os.stat(at)
        if stat.S_ISDIR(status.st_mode):
            self.directory(at)
        else:
            with open(at, "rb") as file:
                self.file(at, file.read(), mode=status.st_mode & 0o755, mtime=int(status.st_mtime))

    def directory(self, path: str) -> None:
        """Add an empty directory and those above it."""
        if path in ("", "/") or path in self._written:
            return
        self.directory(os.path.dirname(path))
        self._entry(path, stat.S_IFDIR | 0o755, b"", 0)

    def file(self, path: str, content: bytes, *, mode: int = 0o644, mtime: int = 0) -> None:
        """Add a file of given content; a second one of a name is left out."""
        if path not in self._written:
            self.directory(os.path.dirname(path))
            self._entry(path, stat.S_IFREG | mode, content, mtime)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        if path not in self._written:
            self.directory(os.path.dirname(path))
            self._entry(path, stat.S_IFLNK | 0o777, target.encode(), 0)

    def close(self) -> None:
        """End the archive; the file stays open."""
        self._entry("/TRAILER!!!", 0, b"", 0)

    def _entry(self, path: str, mode: int, content: bytes, mtime: int) -> None:
        self._written.add(path)
        name = path[1:].encode() + b"\0"
        fields = (len(self._written), mode, 0, 0, 1, mtime, len(content), 0, 0, 0, 0, len(name), 0)
        header = _MAGIC + b"".join(b"%08x" % field for field in fields) + name
        self._out.write(header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4))
