"""What an interrupted pull had fetched: ids of files, dirtrees and dirmetas and what they became, appended as it goes.

The next pull, of whatever commit, takes from it what the core still holds, and the first one that succeeds empties it:
from then on the commit's stream knows the same.  One pull at a time uses the file; another one does without.

A record is the object's id (32 bytes), size of the content's composefs id in hexadecimal digits (u8, 0 for inline
content), that id, size of the data (u32), the data (head and inline content, or all of the object), CRC-32 of all this.
A record that is cut short or does not fit its CRC ends the file.

The file begins with the kernel's boot id: after a power cut, an object that was not yet published may be there with the
right size and wrong bytes, so that nothing noted before counts.
"""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import BinaryIO
from zlib import crc32

from composefs_ext.files import read_up_to
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.names import ID_SIZE

__all__ = ["Cache", "read_records", "record"]

_FILE_NAME = "files-1"
_MAX_SIZE = 512 << 20
_BOOT_ID_SIZE = 37


def record(object_id: bytes, entry: Entry) -> bytes:
    """Return the record of an object."""
    content = (entry.content or "").encode()
    body = b"%b%c%b%b%b" % (object_id, len(content), content, struct.pack("<I", len(entry.data)), entry.data)
    return body + struct.pack("<I", crc32(body))


def read_records(data: bytes) -> tuple[dict[bytes, Entry], int]:
    """Return the objects in the records, and how many bytes of ``data`` are good."""
    objects: dict[bytes, Entry] = {}
    start = 0
    while start + ID_SIZE < len(data):
        content_end = start + ID_SIZE + 1 + data[start + ID_SIZE]
        if content_end + 4 > len(data):
            break
        (size,) = struct.unpack_from("<I", data, content_end)
        end = content_end + 4 + size
        if end + 4 > len(data) or struct.unpack_from("<I", data, end)[0] != crc32(data[start:end]):
            break
        content = data[start + ID_SIZE + 1 : content_end].decode("ascii", "replace")
        objects[data[start : start + ID_SIZE]] = Entry(data[content_end + 4 : end], content or None)
        start = end + 4
    return objects, start


class Cache:
    """The cache file of one repository, open and locked for one pull."""

    def __init__(self, file: BinaryIO, objects: dict[bytes, Entry]) -> None:
        self._file = file
        self._objects = objects

    @classmethod
    def open(cls, directory: str | None) -> Cache | None:
        """Open the file in the core's cache directory; None if there is none that can be used now."""
        if directory is None:
            return None
        try:
            file = open(os.path.join(directory, _FILE_NAME), "a+b")  # noqa: SIM115  close() does
        except OSError:
            return None  # a cache is never worth an error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            boot = _boot_id()
            file.seek(0)
            objects: dict[bytes, Entry] = {}
            good = 0
            if file.read(len(boot)) == boot:
                objects, good = read_records(read_up_to(file, _MAX_SIZE))
            file.truncate(len(boot) + good if good else 0)
            if not good:
                file.write(boot)
        except OSError:
            file.close()
            return None
        return cls(file, objects)

    def get(self, object_id: bytes) -> Entry | None:
        """Return an object that an interrupted pull had fetched."""
        return self._objects.get(object_id)

    def add(self, object_id: bytes, entry: Entry) -> None:
        """Note what has come in, if there is room."""
        with suppress(OSError):
            self._file.write(record(object_id, entry))

    def clear(self) -> None:
        """Empty the cache, after the pull has succeeded."""
        with suppress(OSError):
            self._file.flush()
        with suppress(OSError):  # what could not be written will stand there without a boot id, and not count
            os.ftruncate(self._file.fileno(), 0)

    def close(self) -> None:
        """Write what is still in memory, if there is room, and let other pulls use the file."""
        with suppress(OSError):
            self._file.close()


def _boot_id() -> bytes:
    """Return what tells this run of the kernel from all others."""
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read(_BOOT_ID_SIZE)
