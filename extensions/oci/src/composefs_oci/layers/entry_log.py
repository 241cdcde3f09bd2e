"""The entries of a layer, on their way from the worker that parses the archive to the process that makes the tree.

The worker writes them into a file, in lots, and tells how many bytes of it are whole; who reads it can begin when the
first lot is.  So an archive is parsed once, the tree grows while its files still arrive, and however many entries there
are, no more than a lot of them is in memory before its turn comes.

A lot is four bytes with its length, then what ``marshal`` makes of a list of tuples: the entry's fields but the last
two, and the content: a file's bytes if they are few, or the number of the file that was given away.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable, Iterator
from typing import Any

from composefs_oci.formats.tar import Entry

__all__ = ["EntryLog", "read_log"]

_LENGTH = 4
_ENTRIES = 256
_BYTES = 1 << 20


class EntryLog:
    """The file being written; ``size`` is that of the lots that are in it."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._lot: list[tuple[Any, ...]] = []
        self._xattr_bytes = 0
        self.size = 0

    def add(self, entry: Entry, content: bytes | int) -> None:
        """Add an entry; a sparse file is told as the whole file that it is when expanded."""
        path, kind, mode, uid, gid, size, mtime, link, device, xattrs, _, sparse = entry
        if sparse is not None:
            size = sparse.size
        self._lot.append((path, kind, mode, uid, gid, size, mtime, link, device, xattrs, content))
        for _, value in xattrs:
            self._xattr_bytes += len(value)
        if len(self._lot) >= _ENTRIES or self._xattr_bytes >= _BYTES:
            self.flush()

    def flush(self) -> None:
        """Have everything in the file."""
        if self._lot:
            lot = marshal.dumps(self._lot)
            rest = memoryview(len(lot).to_bytes(_LENGTH, "little") + lot)
            self.size += len(rest)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
            self._lot = []
            self._xattr_bytes = 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_log(path: str, written: Callable[[int], int]) -> Iterator[list[tuple[Entry, bytes | int]]]:
    """Yield the lots of a log, from the first one.

    ``written`` gets how much was read, waits until there is more, and returns how much there is; no more: that was all.
    """
    position = 0
    fd = -1
    try:
        while (end := written(position)) > position:
            if fd < 0:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            while position < end:
                size = int.from_bytes(os.pread(fd, _LENGTH, position), "little")
                rows = marshal.loads(os.pread(fd, size, position + _LENGTH))  # noqa: S302  our own process's
                yield [(Entry._make((*fields, False, None)), content) for *fields, content in rows]
                position += _LENGTH + size
    finally:
        if fd >= 0:
            os.close(fd)
