"""The directories of a repository that is written to: opened from the one above them and never through a symlink.

So a repository that somebody else has laid out, or whose directories are exchanged meanwhile, cannot lead elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat

from composefs_ext.errors import CorruptError
from composefs_ostree.exporting.unfinished import DIRECTORY

__all__ = ["Directories"]

_MOST_OPEN = 512
"""Directories that are kept open: those of objects and some more.  Refs and static deltas may have thousands.

It is a quarter of all files that may be open, where that is less.
"""


class Directories:
    """The directories of the repository at ``path``; ``top`` is the descriptor of the uppermost."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._below: dict[str, int] = {}
        self._most = min(_MOST_OPEN, os.sysconf("SC_OPEN_MAX") // 4)

    def close(self) -> None:
        """Let go of them."""
        for fd in (self.top, *self._below.values()):
            os.close(fd)

    def open(self, path: str, *, make: bool = False) -> int:
        """Return the descriptor of a directory by its path in the repository, "" for its top.

        It stays ours, and may be closed when others are asked for.
        """
        found = self._below.get(path) if path else self.top
        if found is not None:
            return found
        above, _, name = path.rpartition("/")
        above_fd = self.open(above, make=make)
        try:
            if make:
                try:
                    os.mkdir(name, 0o755, dir_fd=above_fd)
                    os.fsync(above_fd)
                except FileExistsError:
                    pass
                except PermissionError as error:
                    error.filename = f"{self._path}/{above}".rstrip("/")  # that refuses, not what is not there yet
                    raise
            fd = os.open(name, DIRECTORY, dir_fd=above_fd)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            is_ref = path.startswith("refs/heads/") and stat.S_ISREG(os.lstat(name, dir_fd=above_fd).st_mode)
            raise CorruptError(
                f"{self._path}/{path} is not a directory but a file or a symlink",
                hint="one ref's name cannot be the beginning of another's path"
                if is_ref
                else "a repository has its objects and refs in itself",
                subject=f"{self._path}/{path}",
            ) from None
        self._below[path] = fd
        if len(self._below) > self._most:
            os.close(self._below.pop(next(iter(self._below))))
        return fd
