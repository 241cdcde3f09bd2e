"""Where the files of a repository are made before they are renamed to where they belong.

That is a directory of its own for each run, below the repository's ``tmp``, which nobody else looks at.  It is locked
as long as the run lives: one that is not a killed run has left, and the next one removes it.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from typing import BinaryIO

__all__ = ["DIRECTORY", "Unfinished", "create", "sweep"]

_PREFIX = "cfsctl-export-"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a directory is opened, which a symlink is not taken for."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class Unfinished:
    """The directory of one run; ``path`` is its path, ``fd`` its descriptor."""

    def __init__(self, tmp: str, tmp_fd: int) -> None:
        """``tmp`` is the path of the directory above it, ``tmp_fd`` a descriptor of that, which is closed with it."""
        self._tmp_fd = tmp_fd
        self._name, self.fd = _make(tmp_fd)
        self.path = f"{tmp}/{self._name}"

    def write(self, name: str, data: bytes, *, durably: bool = True) -> None:
        """Make a file, whose content survives a power cut unless it is not to be made ``durably``."""
        with create(name, self.fd) as file:
            file.write(data)
            if durably:
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        """Remove it with what is left in it."""
        _remove_tree(self._tmp_fd, self._name)
        os.close(self.fd)
        os.close(self._tmp_fd)


def create(name: str, directory: int | None = None) -> BinaryIO:
    """Open a new file, readable for everybody, by its path or by that from an open directory."""
    return open(os.open(name, _NEW_FILE, 0o644, dir_fd=directory), "wb")


def sweep(tmp_fd: int) -> None:
    """Remove what killed runs have left."""
    for name in os.listdir(tmp_fd):
        if name.startswith(_PREFIX):
            with suppress(OSError):
                fd = os.open(name, DIRECTORY, dir_fd=tmp_fd)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its run lives
                    _remove_tree(tmp_fd, name)
                finally:
                    os.close(fd)


def _make(tmp_fd: int) -> tuple[str, int]:
    """Make a directory, and lock it; return its name and descriptor."""
    while True:
        name = _PREFIX + secrets.token_hex(8)
        os.mkdir(name, 0o700, dir_fd=tmp_fd)
        # Until it is locked, another run that starts takes it for a dead one's, and removes it; and until it is open,
        # who owns the directory above may put one of theirs in its place, to exchange what is staged there.
        with suppress(FileNotFoundError):
            fd = os.open(name, DIRECTORY, dir_fd=tmp_fd)
            with suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.stat(name, dir_fd=tmp_fd, follow_symlinks=False)
                if _is_ours(fd):
                    return name, fd
            os.close(fd)


def _is_ours(fd: int) -> bool:
    """Say whether a directory has our owner, or the one that its file system gives to whatever we make.

    That is nobody on NFS that squashes root, and on FAT whom the mount names.
    """
    owner = os.fstat(fd).st_uid
    if owner == os.geteuid():
        return True
    with create("owner", fd) as file:
        is_ours = os.fstat(file.fileno()).st_uid == owner
    os.unlink("owner", dir_fd=fd)
    return is_ours


def _remove_tree(above: int, name: str) -> None:
    """Remove a flat directory."""
    with suppress(FileNotFoundError):
        fd = os.open(name, DIRECTORY, dir_fd=above)
        try:
            for each in os.listdir(fd):
                os.unlink(each, dir_fd=fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=above)
