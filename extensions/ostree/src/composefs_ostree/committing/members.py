"""The members of a tar archive, as libarchive reads them for ostree.

The headers are read by the standard library.  That is lenient where we must not be: it takes a damaged header for the
end, and a negative size too, or goes back by it; what is no number is 0 to it; and it reads headers of any size into
memory.  It applies global headers, which libarchive passes over.  And it does not know what GNU tar writes beside
files: labels (``--label``), and in incremental archives (``--incremental``) directories of a type of their own, and
times where others have the beginning of a long name.
"""

from __future__ import annotations

import os
import re
import tarfile

from composefs_ext.errors import CorruptError, FormatError, TooLargeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["read_members"]

_BLOCK = 512
_MAX_HEADER = 2 << 20
_MAX_HEADERS = 32 << 20
"""Bytes of all the headers of a member; the map of a sparse file may be among them, block by block.

Each that may be kept has room (composefs_ostree.committing.tarball): its entries are two numbers and make two pieces.
"""
_MIN_NUMBER = 15
"""What a number of a map counts for at least: it takes more memory than that, however short it is."""
_MAX_STEPS = 1 << 27
"""Squares of the lengths of runs of digits: an older ``tarfile`` looks from each digit to its run's end."""
_MAX_SIZE = (1 << 63) - 1
_MAX_DIGITS = 640  # int() reads as many, whatever its limit is set to
_LABEL, _DUMPED_DIRECTORY = b"V", b"D"
_NAME, _MAGIC, _PREFIX = slice(0, 100), slice(257, 265), slice(345, 500)
_GNU = b"ustar  \0"


def read_members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the members of an archive; raise FormatError, CorruptError or TooLargeError."""
    end = os.fstat(file.fileno()).st_size
    try:
        bounded = _Bounded(file)
        archive = tarfile.TarFile(
            fileobj=bounded,  # type: ignore[arg-type]
            mode="r",
            encoding="utf-8",
            tarinfo=_Member,
            pax_headers=_PassedOver(),
        )
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
            bounded.left = _MAX_HEADERS
            if archive.offset > end + _BLOCK:
                raise CorruptError(f"the archive ends inside of {member.name[:200]!a}")
            _check_size(member)
            if member.type != _LABEL:
                _correct(member, file)
                yield member
        file.seek(archive.offset)
        block = file.read(_BLOCK)
    except tarfile.TarError as error:
        raise FormatError(
            f"not a tar archive, or a damaged one: {error}",
            hint="tar= takes an archive of tar, plain or compressed by gzip, xz or bzip2; dir= takes a directory",
        ) from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise FormatError(f"a damaged tar archive: {type(error).__name__}") from None
    if block.strip(b"\0") or (block and len(block) < _BLOCK):
        raise CorruptError(f"the header at byte {archive.offset} is damaged")


class _Member(tarfile.TarInfo):
    """A member of a size that something may have."""

    @property
    def size(self) -> int:
        return self._size

    @size.setter
    def size(self, size: int) -> None:
        if not 0 <= size <= _MAX_SIZE:
            raise _bad_size(self, str(size))
        self._size = size


class _Bounded:
    """A file for ``tarfile``, which reads headers whole, whatever size they claim, and maps of any number of blocks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.left = _MAX_HEADERS
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise TooLargeError(f"a header has {size} bytes, more than {_MAX_HEADER}")
        data = self._file.read(size)
        self.left -= max(size, _MIN_NUMBER * data.count(b"\n")) if size == _BLOCK else size
        if self.left < 0:
            raise TooLargeError(
                f"the headers of a member have more than {_MAX_HEADERS} bytes, or a map too many numbers",
                hint="pack sparse files without --sparse",
            )
        if size > _BLOCK and sum(len(digits) ** 2 for digits in re.findall(rb"\d+", data)) > _MAX_STEPS:
            raise TooLargeError("a header has too many digits in a row")
        return data


class _PassedOver(dict[str, str]):
    """Where ``tarfile`` keeps the global headers."""

    def __setitem__(self, key: str, value: str) -> None:
        pass


def _check_size(member: tarfile.TarInfo) -> None:
    """Refuse a size of an extended header that ``tarfile`` cannot read, as it takes 0 for that."""
    size = member.pax_headers.get("size", "0")
    digits = size.strip(" \t")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > _MAX_DIGITS:
        raise _bad_size(member, size)


def _bad_size(member: tarfile.TarInfo, size: str) -> FormatError:
    return FormatError(f"{member.name[:200]!a} has a size that nothing has, {size[:20]!a}")


def _correct(member: tarfile.TarInfo, file: BinaryIO) -> None:
    """Give a member the name and type that libarchive finds."""
    # A sparse file may have a second name, for programs that know none; tarfile takes the last.
    member.name = member.pax_headers.get("GNU.sparse.name", member.name)
    header = os.pread(file.fileno(), _BLOCK, member.offset_data - _BLOCK)
    if header[_MAGIC] == _GNU and header[_PREFIX.start]:
        name = _text(header[_NAME])
        if member.name.rstrip("/") == f"{_text(header[_PREFIX])}/{name}".rstrip("/"):
            member.name = name
    is_old_directory = member.isreg() and not member.size and member.name.endswith("/")
    if is_old_directory or member.type == _DUMPED_DIRECTORY:
        member.type = tarfile.DIRTYPE
    elif member.type not in tarfile.SUPPORTED_TYPES:
        raise FormatError(f"{member.name[:200]!a} is of the type {member.type!a}, which is not known")


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")
