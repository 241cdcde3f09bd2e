"""OCI archives: a layout in a tar, read in place.

The archive is walked once, header by header, for where each file's content is; nothing is unpacked.  As tar does it,
the last of several members with the same name counts.  One that is compressed as a whole would have to be unpacked
for every blob, and is refused.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from composefs_ext.errors import FormatError, NotFoundError, UnsupportedError
from composefs_ext.files import Naming
from composefs_oci.formats.json_document import AGAIN
from composefs_oci.formats.tar.header import BLOCK, ZERO, padding, parse_header
from composefs_oci.formats.tar.pax import parse_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_oci.sources.source import Reader

__all__ = ["ArchiveFiles"]

_MAX_MEMBERS = 200_000
_MAX_EXTENSION = 1 << 20
_MAX_NAME = 255  # characters; nothing in a layout has a longer path, so nobody asks for what has one
_REGULAR = frozenset({b"0", b"\0", b"7"})
_TELLING = frozenset({b"x", b"L"})
_BEFORE_MEMBERS = _TELLING | {b"K", b"g"}

_COMPRESSIONS = (
    (b"\x1f\x8b", "gzip", "gzip -dc"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc"),
    (b"\xfd7zXZ\0", "xz", "xz -dc"),
    (b"BZh", "bzip2", "bzip2 -dc"),
)


class _Place(NamedTuple):
    """Where a file's content is in the archive; ``offset`` is None for what is no regular file."""

    offset: int | None
    size: int


class ArchiveFiles:
    """The files of a layout that is a tar archive."""

    def __init__(self, path: str) -> None:
        """Find all members; raise NotFoundError, UnsupportedError for a compressed archive, or FormatError."""
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NotFoundError(f"{path} does not exist", hint="check the path", subject=path) from None
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise NotFoundError(
                    f"{path} is not a regular file",
                    hint="an archive must be one, as it is read here and there; for a directory write oci:PATH",
                    subject=path,
                )
            with Naming(path):
                self._places = self._walk()
        except BaseException:
            os.close(self._fd)
            raise

    def open(self, path: str) -> Reader | None:
        """Open a file by its path in the layout."""
        place = self._places.get(path)
        if place is None:
            return None
        if place.offset is None:
            where = self.where(path)
            raise FormatError(f"{where} is not a regular file", hint=AGAIN, subject=where)
        return _Part(self._fd, place.offset, place.size)

    def where(self, path: str) -> str:
        """Return the archive's path and the one in it."""
        return f"{self._path}: {path}"

    def other_sort(self) -> str | None:
        """Return skopeo's name of what docker save and podman save write (containers-transports(5))."""
        place = self._places.get("manifest.json")
        # In a path skopeo takes a colon for what a tag comes behind.
        is_one = place is not None and place.offset is not None and ":" not in self._path
        return f"docker-archive:{self._path}" if is_one else None

    def close(self) -> None:
        """Close the archive."""
        os.close(self._fd)

    def _walk(self) -> dict[str, _Place]:
        total = os.fstat(self._fd).st_size
        places: dict[str, _Place] = {}
        position = 0
        told: dict[bytes, bytes] = {}  # of the next member, by headers before its own: its path, its size
        for _ in range(_MAX_MEMBERS):
            block = os.pread(self._fd, BLOCK, position)
            if block == ZERO or (not block and places):
                return places
            if len(block) < BLOCK:
                raise self._cut_off() if position else self._strange(block)
            try:
                header = parse_header(block)
            except FormatError as error:
                raise self._strange(block) if not position else self._malformed(error.message) from None
            position += BLOCK
            is_member = header.kind not in _BEFORE_MEMBERS
            length = _size(told[b"size"]) if is_member and b"size" in told else header.size
            if not 0 <= length <= total - position:
                raise self._cut_off()
            if header.kind in _TELLING:
                if length > _MAX_EXTENSION:
                    raise self._malformed(f"an extended header of {length} bytes")
                told |= self._told(header.kind, os.pread(self._fd, length, position))
            elif is_member:
                path = _clean(told.get(b"path", header.name))
                if len(path) <= _MAX_NAME:
                    places[path] = _Place(position if header.kind in _REGULAR else None, length)
                told = {}
            position += length + padding(length)
        raise self._malformed(f"more than {_MAX_MEMBERS} members")

    def _told(self, kind: bytes, content: bytes) -> dict[bytes, bytes]:
        """Return what a header tells of the member behind it, of path and size."""
        if kind == b"L":
            return {b"path": content.partition(b"\0")[0]}
        try:
            return {key: value for key, value in parse_records(content) if key in (b"path", b"size")}
        except FormatError as error:
            raise self._malformed(error.message) from None

    def _strange(self, block: bytes) -> UnsupportedError | FormatError:
        """Say what a file is that does not begin as a tar does."""
        for magic, compression, command in _COMPRESSIONS:
            if block.startswith(magic):
                from shlex import quote

                return UnsupportedError(
                    f"{self._path} is compressed with {compression}",
                    hint=f"decompress it first: {command} {quote(self._path)} >image.tar",
                    subject=self._path,
                )
        return FormatError.at(
            self._path,
            "not a tar archive",
            hint="give the tar of an OCI layout, as skopeo copy … oci-archive:FILE writes it",
        )

    def _cut_off(self) -> FormatError:
        return FormatError(f"{self._path} is cut off", hint="copy or download the archive again", subject=self._path)

    def _malformed(self, reason: str) -> FormatError:
        return FormatError.at(self._path, reason)


class _Part:
    """A part of an open file, read independently of others."""

    __slots__ = ("_fd", "_left", "_position")

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._position = offset
        self._left = size

    def read(self, size: int, /) -> bytes:
        data = os.pread(self._fd, min(size, self._left), self._position)
        self._position += len(data)
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._left = 0


def _clean(name: bytes) -> str:
    """Return a member's name as the paths in a layout are written: ``./blobs//x`` is ``blobs/x``."""
    return "/".join(part for part in os.fsdecode(name).split("/") if part not in ("", "."))


def _size(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 20 else -1
