"""Trees whose files are all described before one of them is read: those of tar archives, dumps and commits."""

from __future__ import annotations

import os

from composefs_ext import Core
from composefs_ext.errors import CorruptError, FormatError, MissingObjectError
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
from composefs_ostree.formats.objects import MAX_DEPTH, MAX_INODES

__all__ = ["Listed", "TreeBuilder", "require_objects"]


class TreeBuilder:
    """Puts entries that are given by path into a tree; raises FormatError for those that do not fit into it."""

    def __init__(self, layers: Layers, hint: str | None = None) -> None:
        """``hint`` says what to do about directories that are missing."""
        self.root = layers.root
        self.hint = hint
        self._changes = layers.changes
        self._left_out: set[bytes] = set()  # directories, by path
        self._not_there: dict[bytes, int] = {}  # files that are left out, and may have other names
        self.inodes: list[Inode] = []
        self.paths: list[bytes] = []
        self._first = layers.jobs
        self._directories = 1
        self._last = b"", self.root  # what is in one directory mostly stands together

    def directory(self, path: bytes, meta: Meta) -> None:
        """Add a directory, or what is known of one that is there."""
        if self._pop_left_out(path, is_directory=True):
            return
        directory = self.root
        if path:
            above, name = self._split(path)
            directory = self._below(above, name, path, len(path))
        directory.meta = self._changes.apply(meta, self._changes.paths.pop_mode(b"/" + path))

    def file(self, path: bytes, inode: Inode) -> None:
        """Add a regular file or a symlink; a later one of the same name replaces it."""
        job = self._first + len(self.inodes)
        if self._pop_left_out(path):
            self._not_there[path] = job
        else:
            self._name(path, job)
            self._changes.paths.note(b"/" + path, job)
        self.inodes.append(inode)
        self.paths.append(path)
        self._check_number()

    def link(self, path: bytes, target: bytes) -> None:
        """Give one more name to the file that ``target`` is."""
        if self._pop_left_out(path):
            return
        if target in self._not_there:
            self._name(path, self._not_there[target])
            return
        above, _, name = target.rpartition(b"/")
        directory = self._at(above)
        if directory is None or name not in directory.files:
            raise FormatError(f"/{shown(path)} is a link to /{shown(target)}, which is no file before it")
        self._name(path, directory.files[name])

    def no_file(self, path: bytes) -> None:
        """Leave out an entry that no commit can hold; raise UnsupportedError unless it is to be left out."""
        if not self._pop_left_out(path):
            raise special_file_error("/" + shown(path))

    def parents(self, path: bytes, meta: Meta) -> None:
        """Make the directories above a path if the last is not there; then all get these metadata, the root too."""
        above = path.rpartition(b"/")[0]
        left_out = self._changes.paths.left_out
        if self._at(above) is not None or self._is_inside_left_out(path) or b"/" + path in left_out:
            return
        check_name(above, b"")
        _check_depth(path)
        meta = self._changes.apply(meta)
        directory = self.root
        directory.meta = meta
        end = -1
        for name in above.split(b"/"):
            end += 1 + len(name)
            directory = self._below(directory, name, path, end)
            directory.meta = meta

    def _pop_left_out(self, path: bytes, *, is_directory: bool = False) -> bool:
        """Tell whether an entry is left out: by itself, or with a directory above it."""
        if not self._changes.paths.pop_left_out(b"/" + path):
            return self._is_inside_left_out(path)
        if is_directory:
            self._left_out.add(path)
        return True

    def _is_inside_left_out(self, path: bytes) -> bool:
        while self._left_out and (path := path.rpartition(b"/")[0]):
            if path in self._left_out:
                return True
        return False

    def _name(self, path: bytes, job: int) -> None:
        above, name = self._split(path)
        if name in above.directories:
            raise clash_error("/" + shown(path))
        above.files[name] = job

    def _split(self, path: bytes) -> tuple[Directory, bytes]:
        above, _, name = path.rpartition(b"/")
        if not name:
            raise FormatError("the root is not a directory")
        found = self._at(above)
        if found is None:
            raise FormatError(f"/{shown(path)} is in a directory that does not stand before it", hint=self.hint)
        check_name(name, b"/" + above if above else b"")
        _check_depth(path)
        return found, name

    def _at(self, path: bytes) -> Directory | None:
        """Return the directory of this path, which has no slash at either end; None if there is none."""
        last, directory = self._last
        if path == last:
            return directory
        directory = self.root
        for name in path.split(b"/") if path else ():
            below = directory.directories.get(name)
            if below is None:
                return None
            directory = below
        self._last = path, directory
        return directory

    def _below(self, above: Directory, name: bytes, path: bytes, end: int) -> Directory:
        """Return a directory, a new one if it is not there, whose path are the first ``end`` bytes of ``path``."""
        found = above.directories.get(name)
        if found is None:
            if name in above.files:
                raise clash_error("/" + shown(path[:end]))
            found = above.directories[name] = Directory()
            self._directories += 1
            self._check_number()
        return found

    def _check_number(self) -> None:
        if self._first + len(self.inodes) + self._directories > MAX_INODES:
            raise too_many_error()


def _check_depth(path: bytes) -> None:
    if path.count(b"/") >= MAX_DEPTH:
        raise too_many_error()


def require_objects(core: Core, tree: TreeBuilder, hint: str) -> None:
    """Raise MissingObjectError if the repository lacks contents of a tree."""
    wanted = sorted({inode.object_id for inode in tree.inodes if inode.object_id is not None})
    if not wanted:
        return
    present = core.object_has(wanted).result()
    absent = [each for each, is_present in zip(wanted, present, strict=True) if not is_present]
    if absent:
        from composefs_ext.text import counted

        raise MissingObjectError(
            f"the tree needs {counted(len(absent), 'object')} not in the repository: {', '.join(absent[:3])}",
            hint=hint,
            subject=absent[0],
        )


class Listed:
    """A whole tree; the contents that are not in it are in one file, or in the repository."""

    def __init__(self, core: Core, tree: TreeBuilder, path: str | None = None) -> None:
        self.jobs = len(tree.inodes)
        self._tree = tree
        self._path = path
        self._repository = core.repo
        self._fd = -1  # of the file of the contents, once some of it is read

    def where(self, job: int) -> str:
        """Return the file's path in the tree."""
        return "/" + shown(self._tree.paths[job])

    def close(self) -> None:
        """Close the file of the contents."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, job: int) -> Inode:
        """Return the inode with its content open."""
        inode = self._tree.inodes[job]
        if inode.object_id is not None:
            return inode._replace(fd=self._repository.open(inode.object_id), owned=True)
        if inode.inline is not None:
            return inode
        if self._path is not None and self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise CorruptError(
                    f"{self._path} could be opened before, now it cannot: {error.strerror}",
                    hint="run the command again",
                ) from None
        return inode._replace(fd=self._fd)
