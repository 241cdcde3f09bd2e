"""A tree from a directory.

The walk is depth first in name order and goes by file descriptors, never by paths, so what is below the root cannot be
exchanged for something elsewhere while we look: nothing is followed, and going back up is checked.  Two descriptors are
enough for any depth.  A file that vanishes or changes while it is read is an error that names it.

Reading and hashing is most of the work.  Once there is enough of it, other processes do it (composefs.linux.filepool)
while the walk goes on; each file's digest arrives later than its node.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Literal, NamedTuple

from composefs.digest import Algorithm
from composefs.errors import (
    ComposefsError,
    ConflictError,
    FormatError,
    NotFoundError,
)
from composefs.fsverity import digest_fd
from composefs.linux.closing import Closing
from composefs.linux.filepool import IN_FLIGHT, FilePool
from composefs.linux.files import open_file, xattr_names
from composefs.systemerrors import from_os_error
from composefs.tree import NO_XATTRS, Node, Tree, collection_paused, object_path

__all__ = ["ScanOptions", "no_such_directory", "scan_directory"]

MAX_INLINE = 64
"""Bytes of a file that is kept in the image itself; libcomposefs and composefs-rs agree on it."""

_ALONE_BYTES = 8 << 20
"""What is hashed before other processes are started, which takes some 3 ms each."""
_UNREPORTED_NAMES = 1 << 14
_UNREPORTED_SECONDS = 1
"""Reports begin after so many names, or seconds, where there is too little to hash for other processes to start."""

_TIMES = struct.Struct("<qqL")

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_DEVICES = (stat.S_IFBLK, stat.S_IFCHR)


class ScanOptions(NamedTuple):
    """What of a directory gets into the tree; the defaults are those of ``cfsctl create-image``.

    ``hardlinks``: names of one inode stay one node, instead of one node each; but never those of a whiteout.
    ``use_epoch``: all times are 0.  ``devices``: with block and character devices, whiteouts included.
    ``xattrs``: all, ``user.…``, or none.  ``follow_root``: the path itself may be a symlink.
    """

    hardlinks: bool = True
    use_epoch: bool = False
    devices: bool = True
    xattrs: Literal["all", "user", "none"] = "all"
    follow_root: bool = True


DEFAULT_OPTIONS = ScanOptions()


def scan_directory(
    path: str | bytes | os.PathLike[str],
    algorithm: Algorithm,
    *,
    store: Callable[[int], str] | None = None,
    options: ScanOptions = DEFAULT_OPTIONS,
    processes: int | None = None,
    report: Callable[[int], object] | None = None,
) -> Tree:
    """Make a tree of a directory and all below it.

    Files of up to 64 bytes become content.  ``store`` is called once for every other file, with a descriptor at its
    start, and answers the id; without it, files are digested.  It may be called in one of ``processes`` copies of this
    process (by default as many as there are processors; 1: never).  ``report`` is told the number of files done, once
    all of these are started: what shows it may start a thread, and forks should not have any.

    Raises ConflictError for a file that changes meanwhile, and the usual errors of the system, with the path.
    """
    if processes is None:
        processes = len(os.sched_getaffinity(0))
    with collection_paused(), _Hashing(algorithm, store, processes, report) as hashing:
        return Tree(_Walk(os.fsencode(path), options, hashing).root(), algorithm)


class _Level(NamedTuple):
    """A directory on the way from the root to where the walk is."""

    node: Node
    identity: tuple[int, int]
    names: Iterator[bytes]
    name: bytes


class _Walk:
    """Goes through a directory and all below it and makes the nodes; ``hashing`` reads the larger files."""

    def __init__(self, path: bytes, options: ScanOptions, hashing: _Hashing) -> None:
        self.path = path
        self.options = options
        self.hashing = hashing
        self.directory = ""
        self.fd = -1
        self.levels: list[_Level] = []
        self.linked: dict[tuple[int, int], tuple[Node, Node, bytes]] = {}  # (device, inode) -> node, directory, name.
        self.xattr_maps: dict[tuple[tuple[bytes, bytes], ...], Mapping[bytes, bytes]] = {(): NO_XATTRS}

    def root(self) -> Node:
        """Walk the whole tree and return the node of its root, once all below it are complete."""
        name = b""
        try:
            follow = 0 if self.options.follow_root else os.O_NOFOLLOW
            try:
                self.fd = os.open(self.path, _OPEN_DIRECTORY | follow)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise no_such_directory(os.fsdecode(self.path)) from error
            root = self.enter(b"")
            while self.levels:
                level = self.levels[-1]
                for name in level.names:
                    if self.visit(level.node, name):
                        break
                else:
                    name = b""
                    self.leave()
            self.hashing.complete()
            return root
        except OSError as error:
            raise from_os_error(error, f"scanning {self.where(name)}") from error
        finally:
            if self.fd >= 0:
                os.close(self.fd)

    def where(self, name: bytes) -> str:
        """Return the path of a name in the current directory, for messages."""
        # Not os.path.join, which copies what it has for every part: in deep trees that is most of the time.
        parts = [self.path.rstrip(b"/"), *[level.name for level in self.levels[1:]], name]
        return os.fsdecode(b"/".join(parts)).rstrip("/") or "/"

    def enter(self, name: bytes) -> Node:
        """Start on the directory that is open as ``self.fd``."""
        status = os.fstat(self.fd)
        node = self.node(status, self.xattrs(self.fd))
        node.children = {}
        names = sorted(map(os.fsencode, os.listdir(self.fd)))
        self.hashing.count(len(names))
        self.levels.append(_Level(node, (status.st_dev, status.st_ino), iter(names), name))
        self.directory = self.where(b"")
        return node

    def turn_to(self, fd: int) -> None:
        """Make another directory the current one; in this order, as a signal may end the scan after any step."""
        before, self.fd = self.fd, fd
        os.close(before)

    def leave(self) -> None:
        """Go back to the directory above."""
        self.levels.pop()
        if not self.levels:
            return
        above = os.open(b"..", _OPEN_DIRECTORY, dir_fd=self.fd)
        self.turn_to(above)
        status = os.fstat(above)
        if (status.st_dev, status.st_ino) != self.levels[-1].identity:
            raise _changed(f"{self.where(b'')} was moved while it was read")
        self.directory = self.where(b"")

    def visit(self, directory: Node, name: bytes) -> bool:
        """Add one name; return True if it is a directory, which is entered then."""
        assert directory.children is not None
        status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            below = os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.fd)
            self.turn_to(below)
            directory.children[name] = self.enter(name)
            return True
        if kind in _DEVICES and not self.options.devices:
            return False
        identity = (status.st_dev, status.st_ino)
        # Overlayfs gives all whiteouts of an upper directory one inode; each says for itself that there is nothing.
        whiteout = kind == stat.S_IFCHR and not status.st_rdev
        linked = status.st_nlink > 1 and self.options.hardlinks and not whiteout
        if linked:
            known = self.linked.get(identity)
            if known is not None:
                node, home, first_name = known
                node.home = home, first_name
                node.nlink += 1
                directory.children[name] = node
                return False
        if kind == stat.S_IFREG:
            node = self.regular(name, status)
        else:
            node = self.node(status, self.xattrs(b"/proc/self/fd/%d/%b" % (self.fd, name)))
            if kind == stat.S_IFLNK:
                node.payload = os.readlink(name, dir_fd=self.fd)
                node.size = len(node.payload)
            elif kind in _DEVICES:
                node.rdev = status.st_rdev & 0xFFFFFFFF
        if linked:
            self.linked[identity] = node, directory, name
        directory.children[name] = node
        return False

    def regular(self, name: bytes, seen: os.stat_result) -> Node:
        """Read a regular file."""
        fd = open_file(name, self.fd)
        try:
            before = os.fstat(fd)
            if (before.st_dev, before.st_ino, before.st_mode) != (seen.st_dev, seen.st_ino, seen.st_mode):
                raise _changed(f"{self.where(name)} was replaced while it was read")
            node = self.node(before, self.xattrs(fd))
            node.size = size = before.st_size
            if size > MAX_INLINE:
                self.hashing.hand_over(fd, _Reading(node, size, before.st_mtime_ns, self.directory, name))
            elif size:
                node.content = os.pread(fd, MAX_INLINE + 1, 0)
                after = os.fstat(fd)
                if (after.st_size, after.st_mtime_ns, len(node.content)) != (size, before.st_mtime_ns, size):
                    raise _changed(f"{self.where(name)} changed while it was read")
            return node
        finally:
            os.close(fd)

    def node(self, status: os.stat_result, xattrs: Mapping[bytes, bytes]) -> Node:
        """Make a node with what every type of file has."""
        mtime = (0, 0) if self.options.use_epoch else divmod(status.st_mtime_ns, 10**9)
        return Node(status.st_mode, 1, status.st_uid, status.st_gid, 0, mtime, xattrs=xattrs)

    def xattrs(self, file: int | bytes) -> Mapping[bytes, bytes]:
        """Read the extended attributes of an open file, or of a path itself; equal ones give the same mapping."""
        if self.options.xattrs == "none":
            return NO_XATTRS
        names = sorted(map(os.fsencode, xattr_names(file)))
        if self.options.xattrs == "user":
            names = [name for name in names if name.startswith(b"user.")]
        pairs = tuple([(name, os.getxattr(file, name, follow_symlinks=isinstance(file, int))) for name in names])
        found = self.xattr_maps.get(pairs)
        if found is None:
            found = self.xattr_maps[pairs] = dict(pairs)
        return found


class _Reading(NamedTuple):
    """A file whose digest is on its way: its node, its size and mtime in ns when it was opened, and where it is."""

    node: Node
    size: int
    mtime: int
    directory: str
    name: bytes


class _Hashing(Closing):
    """Reads files and completes their nodes: here, or in other processes once they are started."""

    def __init__(
        self,
        algorithm: Algorithm,
        store: Callable[[int], str] | None,
        processes: int,
        report: Callable[[int], object] | None,
    ) -> None:
        self.algorithm = algorithm
        self.store = store
        self.processes = processes
        self.report = report
        self.pool: FilePool | None = None
        self.reading: dict[int, _Reading] = {}
        self.bytes_read = 0
        self.names = 0
        self.quiet_until = monotonic() + _UNREPORTED_SECONDS
        self.files_done = 0
        if processes == 1:
            self.tell()

    def close(self) -> None:
        """End the other processes."""
        if self.pool is not None:
            self.pool.close()

    def count(self, names: int) -> None:
        """Count names that were met; begin to report if they are many or take long, however little is to be read."""
        self.names += names
        if self.report is None or self.processes == 1:
            return
        if self.pool is None and (self.names > _UNREPORTED_NAMES or monotonic() > self.quiet_until):
            try:
                self.started_pool()
            except ComposefsError:  # where there may be no others, as long as it takes alone
                self.close()
                self.pool, self.processes = None, 1
                self.tell()

    def started_pool(self) -> FilePool:
        """Return the other processes, which are started the first time; reports begin with them."""
        if self.pool is None:
            self.pool = FilePool(self.read)
            self.pool.start(self.processes)
            self.tell()
        return self.pool

    def hand_over(self, fd: int, reading: _Reading) -> None:
        """Have a file read and hashed, here or by another process."""
        self.count(0)
        self.bytes_read += reading.size
        number = None
        if self.pool is not None or (self.processes > 1 and self.bytes_read > _ALONE_BYTES):
            pool = self.started_pool()
            self.collect(pool.answers(IN_FLIGHT - 1))
            number = pool.submit(fd)
        if number is not None:
            self.reading[number] = reading
            return
        answer: bytes | ComposefsError
        try:
            answer = self.read(fd)
        except ComposefsError as error:
            answer = error
        self.finish(reading, answer)

    def read(self, fd: int) -> bytes:
        """Read a whole file; return its size and mtime afterwards, and its digest."""
        digest = digest_fd(fd, self.algorithm) if self.store is None else bytes.fromhex(self.store(fd))
        after = os.fstat(fd)
        # In nanoseconds a time after 2262 has more than 64 bits, and ext4 has times up to 2446.
        return _TIMES.pack(after.st_size, *divmod(after.st_mtime_ns, 10**9)) + digest

    def complete(self) -> None:
        """Wait for all that was handed over."""
        if self.pool is not None:
            self.collect(self.pool.answers(0))
        else:
            self.tell()

    def tell(self) -> None:
        """Report how many files are done."""
        if self.report is not None:
            self.report(self.files_done)

    def collect(self, answers: Iterable[tuple[int, bytes | ComposefsError | OSError]]) -> None:
        """Take in what other processes have found out."""
        for number, answer in answers:
            self.finish(self.reading.pop(number), answer)

    def finish(self, reading: _Reading, answer: bytes | ComposefsError | OSError) -> None:
        """Complete a node with what reading its file gave."""
        node, size, mtime, directory, name = reading
        if isinstance(answer, bytes) and _TIMES.unpack_from(answer) == (size, *divmod(mtime, 10**9)):
            node.digest = answer[_TIMES.size :]
            node.payload = object_path(node.digest)
            self.files_done += 1
            if self.pool is not None or self.processes == 1:
                self.tell()
            if len(node.digest) == self.algorithm.size:
                return
        path = os.path.join(directory, os.fsdecode(name))
        match answer:
            case bytes() if node.digest is None:
                raise _changed(f"{path} changed while it was read")
            case bytes():
                raise FormatError(f"the object of {path} has not a {self.algorithm} id")
            case OSError():
                raise from_os_error(answer, f"reading {path}") from answer
            case ComposefsError():
                raise type(answer)(f"{path}: {answer.message}", hint=answer.hint, subject=answer.subject) from answer


def no_such_directory(path: str) -> NotFoundError:
    """Make the error for a path that the system says is missing, or no directory."""
    if os.path.isdir(path):  # as where a root that is a link is not followed
        return NotFoundError(f"{path} is a symlink, not a directory", subject=path, hint=f"say {path}/ to follow it")
    if os.path.exists(path.rstrip("/")):
        return NotFoundError(f"{path} is not a directory", subject=path, hint="give a directory")
    return NotFoundError(f"{path} does not exist", subject=path, hint="check the path")


def _changed(message: str) -> ConflictError:
    return ConflictError(message, hint="run the command again when nobody writes there", retryable=True)
