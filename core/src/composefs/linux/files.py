"""Files and directories by descriptor: opened, made, removed, and brought to the disk.

With openat(2), open(2) with O_TMPFILE, linkat(2), renameat(2), listxattr(2), fsync(2) and syncfs(2).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Iterator

from composefs.errors import NotFoundError
from composefs.linux.closing import Closing, Descriptor
from composefs.linux.locks import lock
from composefs.systemerrors import Doing, from_os_error

__all__ = [
    "NewFile",
    "absolute",
    "hold",
    "open_directory",
    "open_file",
    "open_or_make_directory",
    "opened",
    "random_name",
    "refusal_to_write",
    "remove_tree",
    "sync_directory",
    "sync_file_system",
    "sync_fully",
    "temporary_place",
    "write_all",
    "xattr_names",
]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_AT_EACCESS = 0x200
_SWEEP_SECONDS = 60.0  # how long a sweeper may take to remove one leftover that it locked


def absolute(path: str | os.PathLike[str]) -> str:
    """Return an absolute path without ``..``, which leads from a link to what is above its target, as in the kernel."""
    parts = os.fspath(path).split("/")
    if ".." in parts:
        end = len(parts) - parts[::-1].index("..")
        path = os.path.join(os.path.realpath("/".join(parts[:end])), *parts[end:])
    return os.path.abspath(path)


def refusal_to_write(name: str, at: int) -> OSError | None:
    """Return why nothing can be made in a directory, or None if it can: the system's reason.

    That tells what has the right owner and mode: a read-only mount or snapshot of btrfs, an immutable directory.
    """
    wanted = os.W_OK | os.X_OK
    if os.access(name, wanted, dir_fd=at, effective_ids=True):
        return None
    from composefs.linux.libc import checked, libc  # os.access keeps the reason to itself

    try:
        checked(libc.faccessat(at, name.encode(), wanted, _AT_EACCESS))
    except OSError as error:
        return error
    return OSError(errno.EACCES, os.strerror(errno.EACCES))


def open_directory(name: str, at: int) -> int:
    """Open a directory; raise NotADirectoryError for anything else, a symlink to one included."""
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
    except OSError as error:
        if error.errno == errno.ELOOP:  # what some kernels say of a symlink
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), name) from error
        raise


def open_or_make_directory(name: str, at: int, mode: int = 0o755) -> int:
    """Open a directory, making it first where it is missing."""
    try:
        return open_directory(name, at)
    except FileNotFoundError:
        # Somebody else may be faster; if what they made is no directory the last line says so.
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=at)
        return open_directory(name, at)


def open_file(name: str | bytes, at: int | None = None) -> int:
    """Open a file for reading that is no symlink; no FIFO keeps the caller waiting, no terminal becomes its own."""
    return os.open(name, _FILE, dir_fd=at)


@contextlib.contextmanager
def opened(path: str, doing: str) -> Iterator[int]:
    """Open a file that the user names, through symlinks too; ``doing`` is what an error says was being done."""
    with Doing(doing, functools.partial(from_os_error, absent="check the path")):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with Descriptor(fd):
        yield fd


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write everything; write(2) may stop short on a full disk or after a signal."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def xattr_names(file: int | str | bytes) -> list[str]:
    """Return the names of the extended attributes of an open file, or of a path itself, even if it is a symlink.

    There are none where the file system or the kernel has no such thing.  Raises ``OSError`` for all else.
    """
    try:
        return os.listxattr(file, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return []
        raise


def random_name() -> str:
    """Return a file name that nobody has or guesses."""
    return os.urandom(12).hex()  # the module secrets costs 2 ms at every start


def temporary_place() -> str:
    """Return the directory for temporary files: TMPDIR, or one of the usual ones; NotFoundError if there is none."""
    import tempfile  # takes 2 ms that most commands need not spend

    try:
        return tempfile.gettempdir()
    except FileNotFoundError as error:
        raise NotFoundError(
            "there is no directory for temporary files that can be written to", hint="name one in TMPDIR"
        ) from error


def hold(fd: int) -> bool:
    """Mark a new temporary file or directory as in use for as long as ``fd`` is open.

    The mark is a shared lock: whoever finds a file that can be locked exclusively may remove it as a leftover.  False
    if that has happened before the mark was there: then make another.
    """
    lock(fd, "a new temporary file", exclusive=False, wait=_SWEEP_SECONDS)
    return os.fstat(fd).st_nlink > 0


class NewFile(Closing):
    """A file being written, which has no name that matters before :meth:`link` or :meth:`replace` gives it one.

    It is made in the directory ``at``, with O_TMPFILE, so that a crash leaves nothing; where the file system cannot do
    that (fuse-overlayfs, some network file systems) or /proc is missing, under a random name, locked so that sweepers
    see it is in use (:func:`hold`).  Closing without a name discards it.  ``fd`` can write until
    :meth:`reopen_read_only`.
    """

    def __init__(self, at: int, mode: int = 0o444) -> None:
        self._at = at
        self._name: str | None = None
        self.fd = -1
        if _has_proc():
            try:
                self.fd = os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, mode, dir_fd=at)
            except OSError as error:
                # EISDIR is what a kernel or FUSE server that does not know the flag answers.
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
        while self.fd < 0:
            self._open_named(mode)
        try:
            os.fchmod(self.fd, mode)  # whatever the umask
        except OSError:
            self.close()
            raise

    def _open_named(self, mode: int) -> None:
        name = random_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, mode, dir_fd=self._at)
        if hold(fd):
            self.fd, self._name = fd, name
        else:
            os.close(fd)

    def reopen_read_only(self) -> None:
        """Exchange ``fd`` for one that cannot write, as enabling fs-verity wants."""
        if self._name is None:
            new = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        else:
            new = open_file(self._name, self._at)
            hold(new)
        os.close(self.fd)
        self.fd = new

    def link(self, at: int, name: str) -> None:
        """Give the file a name; FileExistsError if that is taken."""
        if self._name is None:
            try:
                os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=at, follow_symlinks=True)
            except OSError as error:
                error.filename = name  # a full disk would be looked for at /proc
                raise
        else:
            os.link(self._name, name, src_dir_fd=self._at, dst_dir_fd=at, follow_symlinks=False)

    def replace(self, at: int, name: str, *, durable: bool = False) -> None:
        """Give the file a name, in place of whatever has it, in one step; ``durable``: once its content is on disk."""
        if durable:
            os.fsync(self.fd)
        if self._name is None:
            hold(self.fd)
            temporary = random_name()
            self.link(self._at, temporary)
            self._name = temporary
            if durable:
                os.fsync(self.fd)  # that of btrfs passed over a file without a name; for others there is little left
        os.rename(self._name, name, src_dir_fd=self._at, dst_dir_fd=at)
        self._name = None

    def close(self) -> None:
        """Remove the temporary name, and close."""
        try:
            # While it is open it is marked as in use: what is closed, a sweeper may remove first.
            if self._name is not None:
                os.unlink(self._name, dir_fd=self._at)
        finally:
            os.close(self.fd)


@functools.cache
def _has_proc() -> bool:
    return os.path.isdir("/proc/self/fd")


def remove_tree(name: str, at: int) -> None:
    """Remove a file, or a directory with all below it, however deep and with whatever modes.

    Directories are moved up into ``name`` before they are emptied: depth costs neither recursion nor descriptors.
    """
    mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=at)
        return
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        _make_accessible(name, at)
    with Descriptor(open_directory(name, at)) as top:
        below = _empty(top, top)
        while below:
            directory = below.pop()
            with Descriptor(open_directory(directory, top)) as fd:
                below += _empty(fd, top)
            os.rmdir(directory, dir_fd=top)
    os.rmdir(name, dir_fd=at)


def _empty(fd: int, top: int) -> list[str]:
    """Remove the files of a directory, move its directories to ``top`` under new names, and return those."""
    moved = []
    with os.scandir(fd) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in names:
        if is_directory:
            moved.append(random_name())
            _make_accessible(name, fd)
            os.rename(name, moved[-1], src_dir_fd=fd, dst_dir_fd=top)
        else:
            os.unlink(name, dir_fd=fd)
    return moved


def _make_accessible(name: str, at: int) -> None:
    """Give us all rights on a directory: moving it writes its "..", emptying it needs the rest."""
    with Descriptor(os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)) as fd:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)


def sync_directory(fd: int) -> None:
    """Wait until the names in a directory are on the disk."""
    os.fsync(fd)


def sync_fully(fd: int) -> None:
    """Wait until a file or a directory is on the disk, also a file without a name, or with fs-verity.

    For fsync(2) btrfs writes nothing of the one, and of the other not the digest, unless syncfs(2) came before.  Of
    that the server of a FUSE mount hears nothing.
    """
    sync_file_system(fd)
    os.fsync(fd)


def sync_file_system(fd: int) -> None:
    """Wait until everything on the file system that holds an open file is on the disk: syncfs(2)."""
    from composefs.linux.libc import checked, libc

    checked(libc.syncfs(fd))
