"""A directory of objects without a repository around it, as ``mkcomposefs --digest-store`` fills it.

An object is a file XX/REST, where XX and REST are the hexadecimal digits of its fs-verity digest.  fs-verity is enabled
where the file system has it.
"""

from __future__ import annotations

import contextlib
import os

from composefs.digest import SHA256
from composefs.errors import BusyError, UnsupportedError
from composefs.fsverity import digest_fd
from composefs.linux.closing import Descriptor
from composefs.linux.content import clone, copy
from composefs.linux.files import NewFile, open_or_make_directory, sync_file_system
from composefs.linux.verity import enable

__all__ = ["FlatStore"]

_OBJECT_MODE = 0o644


class FlatStore:
    """The store in the directory ``path``, which is made if it is missing."""

    def __init__(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):  # what it is, if it is no directory, opening tells
            os.makedirs(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def store(self, source: int) -> str:
        """Copy an open file into the store, if it is not there yet, and return its id.

        What is there with another size was cut short by a crash, and is replaced.  Raises ``OSError``.
        """
        digest = digest_fd(source, SHA256).hex()
        with Descriptor(open_or_make_directory(digest[:2], self._fd)) as directory:
            if _size(digest[2:], directory) != os.fstat(source).st_size:
                with NewFile(directory, _OBJECT_MODE) as new:
                    if not clone(source, new.fd):
                        copy(source, new.fd)
                    if digest_fd(new.fd, SHA256).hex() != digest:
                        raise BusyError("a file changed while it was copied", retryable=True)
                    new.reopen_read_only()
                    with contextlib.suppress(UnsupportedError):
                        enable(new.fd, SHA256)
                    new.replace(directory, digest[2:])
        return digest

    def sync(self) -> None:
        """Wait until all that is stored is on the disk, also what a killed run has left.  Raises ``OSError``."""
        sync_file_system(self._fd)


def _size(name: str, at: int) -> int | None:
    try:
        return os.stat(name, dir_fd=at, follow_symlinks=False).st_size
    except FileNotFoundError:
        return None
