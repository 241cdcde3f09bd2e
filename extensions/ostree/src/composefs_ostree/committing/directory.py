"""A directory of this machine as a tree to commit.

The tree may be somebody else's, who changes it meanwhile: every directory is opened from the one above it, never
through a symlink, and of each file all comes from one open descriptor.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from contextlib import closing

from composefs_ext import Core
from composefs_ext.errors import CorruptError, NotFoundError
from composefs_ext.files import Naming
from composefs_ostree.committing.inodes import (
    Directory,
    Inode,
    Meta,
    check_name,
    clash_error,
    shown,
    special_file_error,
    too_many_error,
)
from composefs_ostree.committing.layers import Layers
from composefs_ostree.fetching.bare import own_xattrs
from composefs_ostree.formats.objects import MAX_DEPTH, MAX_INODES

__all__ = ["DirectoryListing"]

_OPEN_DIRECTORIES = 32
_PUMP_EVERY = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _Opened:
    """Opens directories by number; the last ones stay open, so that a walk in order opens each once."""

    def __init__(self, root: str, directories: list[tuple[int, bytes]]) -> None:
        self._root = root
        self._directories = directories
        self._open: OrderedDict[int, int] = OrderedDict()

    def get(self, number: int) -> int:
        """Return the descriptor of a directory, which stays ours."""
        missing = []
        while number not in self._open and number:
            missing.append(number)
            number = self._directories[number][0]
        if number not in self._open:
            try:
                self._keep(0, os.open(self._root, _DIRECTORY & ~os.O_NOFOLLOW))
            except NotADirectoryError:
                hint = "give a directory, or an archive as --tree=tar=FILE"
                raise NotFoundError.at(self._root, "it is not a directory", hint=hint) from None
        self._open.move_to_end(number)
        fd = self._open[number]
        while missing:
            number = missing.pop()
            fd = os.open(self._directories[number][1], _DIRECTORY, dir_fd=fd)
            self._keep(number, fd)
        return fd

    def path(self, number: int) -> bytes:
        """Return a directory's path, for messages."""
        names = []
        while number:
            number, name = self._directories[number]
            names.append(name)
        return b"/".join([os.fsencode(self._root), *reversed(names)])

    def close(self) -> None:
        """Close all."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _keep(self, number: int, fd: int) -> None:
        self._open[number] = fd
        if len(self._open) > _OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])


class DirectoryListing:
    """All of a directory's names; files are opened as they are read."""

    def __init__(self, core: Core, path: str, layers: Layers) -> None:
        """Read the names into the tree; raise OSError, FormatError for a name or UnsupportedError for a device."""
        self._path = path
        self._directories: list[tuple[int, bytes]] = [(0, b"")]  # directory above, name
        self._jobs: list[tuple[int, bytes]] = []  # directory, name
        self._first = layers.jobs
        self._changes = layers.changes
        self._opened = _Opened(path, self._directories)
        waiting = [(0, layers.root, 0)]
        done = 0
        with closing(self._opened), core.progress("directories") as progress:
            while waiting:
                number, directory, depth = waiting.pop()
                if depth > MAX_DEPTH or self._first + len(self._jobs) + len(self._directories) > MAX_INODES:
                    raise too_many_error()
                place = self._opened.path(number)
                with Naming(shown(place)):
                    waiting += self._scan(place, number, directory, depth + 1)
                progress.advance()
                done += 1
                if done % _PUMP_EVERY == 0:
                    core.pump(0)  # a cancelled command stops here
        self.jobs = len(self._jobs)

    def where(self, job: int) -> str:
        """Return a file's path."""
        directory, name = self._jobs[job]
        return shown(self._opened.path(directory) + b"/" + name)

    def close(self) -> None:
        """Close the directories."""
        self._opened.close()

    def read(self, job: int) -> Inode:
        """Open a file, or read a symlink."""
        try:
            return self._read(*self._jobs[job])
        except OSError as error:
            error.filename = self.where(job)  # by which it was opened is its name alone
            raise

    def _scan(self, path: bytes, number: int, directory: Directory, depth: int) -> list[tuple[int, Directory, int]]:
        fd = self._opened.get(number)
        status = os.fstat(fd)
        inside = path[len(os.fsencode(self._path)) :] + b"/"  # the directory, from the root of the tree
        paths = self._changes.paths
        directory.meta = self._changes.apply(_meta(status, fd), paths.pop_mode(inside[:-1] or b"/"))
        found = []
        with os.scandir(fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if paths.pop_left_out(inside + name):
                    continue
                check_name(name, path)
                if entry.is_dir(follow_symlinks=False):
                    if name in directory.files:
                        raise clash_error(shown(path + b"/" + name))
                    below = directory.directories.get(name)
                    if below is None:
                        below = directory.directories[name] = Directory()
                    found.append((len(self._directories), below, depth))
                    self._directories.append((number, name))
                elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                    if name in directory.directories:
                        raise clash_error(shown(path + b"/" + name))
                    job = directory.files[name] = self._first + len(self._jobs)
                    paths.note(inside + name, job)
                    self._jobs.append((number, name))
                else:
                    raise special_file_error(shown(path + b"/" + name))
        return found

    def _read(self, directory: int, name: bytes) -> Inode:
        above = self._opened.get(directory)
        try:
            fd = os.open(name, _FILE, dir_fd=above)
        except OSError:
            status = os.lstat(name, dir_fd=above)
            if not stat.S_ISLNK(status.st_mode):
                raise
            target = os.readlink(name, dir_fd=above)
            return Inode(_meta(status, b"/proc/self/fd/%d/%b" % (above, name)), 0, target)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise CorruptError("it was replaced while the directory was read", hint="run the command again")
            meta = _meta(status, fd)
        except BaseException:
            os.close(fd)
            raise
        return Inode(meta, status.st_size, fd=fd, owned=True)


def _meta(status: os.stat_result, file: int | bytes) -> Meta:
    return Meta(status.st_uid, status.st_gid, status.st_mode, own_xattrs(file))
