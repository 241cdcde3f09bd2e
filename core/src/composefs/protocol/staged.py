"""The staging directory as the core sees it: a flat directory that somebody hostile may be writing at the same time.

Names are looked up relative to one open descriptor and never followed.  What the extension made must be a regular file
with one link; what the core makes there is created exclusively (P-12, P-13), and bounded like what the extension
stages (P-17): a short call can ask for any length.  Files are read, never mapped: the extension could truncate a
mapped one and kill the core.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from composefs.errors import (
    CancelledError,
    ExistsError,
    TooLargeError,
    UsageError,
)
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_file, write_all
from composefs.systemerrors import Doing, from_os_error

__all__ = ["READ_SIZE", "NewStaged", "StagedFiles"]

READ_SIZE = 1 << 18

_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NewStaged:
    """A staged file that the core makes, of ``size`` bytes so far; whoever opened the descriptor ``fd`` closes it."""

    def __init__(self, name: str, fd: int, limit: int | None, interrupted: Callable[[], bool] | None) -> None:
        self.fd = fd
        self.size = 0
        self._name = name
        self._limit = limit
        self._interrupted = interrupted

    def expect(self, size: int) -> None:
        """Raise TooLargeError if the file may not have so many bytes, CancelledError if the user interrupted."""
        if self._limit is not None and size > self._limit:
            raise TooLargeError(
                f"staged file {self._name} would have more than {self._limit} bytes", subject=self._name
            )
        if self._interrupted is not None and self._interrupted():
            raise CancelledError(f"interrupted while staged file {self._name} was written")

    def write(self, data: bytes | memoryview) -> None:
        """Write all of some bytes; raise what ``expect`` does, and ``OSError``."""
        self.expect(self.size + len(data))
        write_all(self.fd, data)
        self.size += len(data)

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Write ``pieces``; raise what ``expect`` does, and errors of the system as ours, which name the file."""
        with Doing(f"writing staged file {self._name}"):
            for piece in pieces:
                self.write(piece)


class StagedFiles:
    """Files in the directory ``fd``, which stays the caller's.  Names have passed params.staged_name.

    ``owner``, (uid, gid), gets the files that the core makes there; None: they stay ours.  Such a file has at most
    ``limit`` bytes, and is given up when ``interrupted`` says so.
    """

    def __init__(
        self,
        fd: int,
        owner: tuple[int, int] | None = None,
        *,
        limit: int | None = None,
        interrupted: Callable[[], bool] | None = None,
    ) -> None:
        self.fd = fd
        self._owner = owner
        self._limit = limit
        self._interrupted = interrupted

    def open(self, name: str, limit: int) -> int:
        """Open a staged file for reading and return the descriptor; it may hold ``limit`` bytes at most."""
        try:
            fd = open_file(name, self.fd)
        except FileNotFoundError:
            raise UsageError(f"there is no staged file {name}", subject=name) from None
        except OSError as error:
            raise UsageError(f"staged file {name} cannot be opened: {error.strerror}", subject=name) from None
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            os.close(fd)
            raise UsageError(f"staged {name} is not a regular file with one link", subject=name)
        if info.st_size > limit:
            os.close(fd)
            raise TooLargeError(f"staged file {name} has {info.st_size} bytes, more than {limit}", subject=name)
        return fd

    def read(self, name: str, limit: int) -> bytes:
        """Read a staged file whole."""
        fd = self.open(name, limit)
        with _reading(name), open(fd, "rb", buffering=0) as file:
            # One byte more than there should be shows a file that grew after its size was looked at.  Asking for all
            # that is allowed would have the kernel find room for that first, 4 ms.
            pieces = [file.read(min(os.fstat(fd).st_size, limit) + 1)]
            size = len(pieces[0])
            while size <= limit and (more := file.read(READ_SIZE)):
                pieces.append(more)
                size += len(more)
        data = b"".join(pieces)
        if len(data) > limit:
            raise TooLargeError(f"staged file {name} has more than {limit} bytes", subject=name)
        return data

    def pieces(self, name: str, limit: int) -> Iterator[bytes]:
        """Read a staged file in pieces; it may grow meanwhile, but not beyond ``limit``."""
        fd = self.open(name, limit)
        left = limit
        with Descriptor(fd), _reading(name):
            while piece := os.read(fd, READ_SIZE):
                left -= len(piece)
                if left < 0:
                    raise TooLargeError(f"staged file {name} has more than {limit} bytes", subject=name)
                yield piece

    @contextmanager
    def create(self, name: str) -> Iterator[NewStaged]:
        """Make a new staged file and yield it; on an error it is removed again."""
        try:
            fd = os.open(name, _CREATE_FLAGS, 0o600, dir_fd=self.fd)
        except FileExistsError:
            raise ExistsError(f"staged file {name} exists already", subject=name) from None
        except OSError as error:
            raise from_os_error(error, f"creating staged file {name}") from error
        try:
            if self._owner is not None:
                os.fchown(fd, *self._owner)
            yield NewStaged(name, fd, self._limit, self._interrupted)
        except BaseException:
            self.remove(name)
            raise
        finally:
            os.close(fd)

    def write(self, name: str, pieces: Iterator[bytes]) -> int:
        """Make a new staged file of ``pieces`` and return its size."""
        with self.create(name) as new:
            new.fill(pieces)
            return new.size

    def remove(self, name: str) -> None:
        """Remove a staged file; it is no error if it is gone."""
        with suppress(OSError):
            os.unlink(name, dir_fd=self.fd)


def _reading(name: str) -> Doing:
    return Doing(f"reading staged file {name}")
