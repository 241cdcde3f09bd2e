"""The directory of a repository: its descriptors and settings, shared by the parts of the facade."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from composefs.digest import Algorithm
from composefs.errors import (
    ComposefsError,
    CorruptError,
    NoSpaceError,
    NotFoundError,
    ReadOnlyError,
)
from composefs.linux.files import open_directory, open_or_make_directory
from composefs.systemerrors import Doing, from_os_error

__all__ = ["RESERVE", "WRITABLE", "Store", "no_directory", "not_regular"]

RESERVE = 1 << 30
RESERVED_PART = 100
"""New objects leave one part in a hundred of the file system free, at most RESERVE bytes."""

_PART_FOR_FANOUT = 4
"""The directories of objects take one in four of the descriptors that there may be."""

WRITABLE = "remount its file system writable, or name another repository with --repo"
"""What to do about a repository on a read-only file system."""


class Store:
    """Descriptors of ``objects``, ``streams``, ``images`` and ``staging``, opened when first needed.

    ``secure``: every object must have fs-verity.  ``writable``: opened for writing, and all checks for that passed.
    ``interrupted``, which may be set at any time, is asked while large files or many parts of files are stored; if it
    says so, that ends with CancelledError.
    """

    def __init__(self, path: str, root: int, algorithm: Algorithm, *, secure: bool, writable: bool) -> None:
        self.path = path
        self.root = root
        self.algorithm = algorithm
        self.secure = secure
        self.writable = writable
        self.interrupted: Callable[[], bool] = lambda: False
        self._directories: dict[str, int] = {}
        self._fanout: dict[str, int] = {}

    def directory(self, name: str, *, mode: int = 0o755) -> int:
        """Return the descriptor of a top-level directory; a writable repository makes one that is missing."""
        fd = self._directories.get(name)
        if fd is None:
            try:
                fd = open_or_make_directory(name, self.root, mode) if self.writable else open_directory(name, self.root)
            except NotADirectoryError as error:
                raise no_directory(f"{self.path}/{name}") from error
            except OSError as error:
                raise from_os_error(error, f"opening {self.path}/{name}") from error
            self._directories[name] = fd
        return fd

    def find(self, name: str) -> int | None:
        """Return the descriptor of a top-level directory, or None if a repository opened for reading has none."""
        try:
            return self.directory(name)
        except NotFoundError:
            return None

    @property
    def objects(self) -> int:
        """The directory of the objects."""
        return self.directory("objects")

    def fanout(self, prefix: str) -> int:
        """Return the descriptor of a directory of objects, made where it is missing.  Raises ``OSError``.

        It stays open, so that nobody whose repository it is puts a symlink in its place before an object gets its name.
        """
        fd = self._fanout.get(prefix)
        if fd is None:
            if len(self._fanout) >= os.sysconf("SC_OPEN_MAX") // _PART_FOR_FANOUT:
                _close_all(self._fanout)
            fd = self._fanout[prefix] = open_or_make_directory(prefix, self.objects)
        return fd

    @property
    def scratch(self) -> int:
        """The directory for what is not finished, on the objects' file system."""
        # Others may pass through, not look: an extension that runs under another uid finds only what it is told.
        return self.directory("staging", mode=0o711)

    def require_writable(self, what: str) -> None:
        """Raise ReadOnlyError, which says ``what`` was wanted, if the repository was opened for reading."""
        if not self.writable:
            raise ReadOnlyError(f"{what}: the repository {self.path} is open for reading only", subject=self.path)

    def require_space(self, size: int, what: str) -> None:
        """Raise NoSpaceError if the disk would be as good as full with ``size`` more bytes.

        A part of it, at most RESERVE bytes, stays free for what must still work then: names, removals, other programs.
        """
        status = os.fstatvfs(self.root)
        free = status.f_bavail * status.f_frsize - size
        reserve = min(status.f_blocks * status.f_frsize // RESERVED_PART, RESERVE)
        if status.f_blocks and free < reserve:  # some network file systems do not tell
            raise NoSpaceError(
                f"{what}: only {max(free + size, 0)} bytes are free for {self.path}, and {reserve} of them stay so",
                subject=self.path,
                hint="free some space, perhaps with `cfsctl gc`, and run the command again",
            )

    def failed(self, error: OSError, what: str) -> ComposefsError:
        """Turn an error of the system, met while doing ``what`` here, into one of ours that names the repository."""
        failure = from_os_error(error, f"{what} in {self.path}")
        if isinstance(failure, ReadOnlyError):
            failure.hint = WRITABLE
        return failure

    def doing(self, what: str) -> Doing:
        """Have errors of the system become what :meth:`failed` makes of them."""
        return Doing(what, self.failed)

    def close(self) -> None:
        """Close everything, which gives up the lock on the repository."""
        _close_all(self._fanout)
        _close_all(self._directories)
        if self.root >= 0:
            os.close(self.root)
            self.root = -1


def not_regular(name: str, at: int) -> str | None:
    """Say what something is that could not be opened, if it is there and no regular file.

    The error of open(2) does not tell: of sockets and devices there are at least three.
    """
    try:
        mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode):
        return None
    return "a symlink" if stat.S_ISLNK(mode) else "not a regular file"


def _close_all(descriptors: dict[str, int]) -> None:
    for fd in descriptors.values():
        os.close(fd)
    descriptors.clear()


def no_directory(where: str, remedy: str = "what belongs there to its place") -> CorruptError:
    """Make the error for something else, a symlink too, in the place of a directory of the repository."""
    hint = f"it must be one, and no symlink; move what is there away, and {remedy}"
    return CorruptError(f"{where} is not a directory", subject=where, hint=hint)
