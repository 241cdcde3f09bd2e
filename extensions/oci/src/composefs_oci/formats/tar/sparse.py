"""Files with holes: which pieces of the expanded file an archive holds.  There are four spellings, all GNU tar's.

* Old GNU: a header of type ``S`` with four pieces, and blocks of 21 more where it says so.
* pax 0.0: records GNU.sparse.size, numblocks, and then offset and numbytes in turn for each piece.
* pax 0.1: the pieces are one record, GNU.sparse.map, numbers with commas between; the name is GNU.sparse.name.
* pax 1.0: GNU.sparse.major, minor, name, realsize; the map stands before the content, in blocks of its own: decimal
  numbers, one a line, their count of pieces first.
"""

from __future__ import annotations

from typing import NamedTuple

from composefs_ext.errors import FormatError, TooLargeError
from composefs_oci.formats.tar.header import BLOCK, number, padding
from composefs_oci.formats.tar.pax import parse_decimal

__all__ = ["Sparse", "extend_old_map", "map_in_content", "old_map", "pax_sparse"]

_MAX_PIECES = 100_000
_PREFIX = b"GNU.sparse."
_OLD_PIECE = 24
_OLD_MAP = slice(386, 482)
_OLD_EXTENDED = 482
_OLD_REALSIZE = slice(483, 495)
_MORE_MAP = slice(0, 504)
_MORE_EXTENDED = 504


class Sparse(NamedTuple):
    """The size of the whole file, and (offset, size) of its pieces; None where the map stands in the content."""

    size: int
    pieces: tuple[tuple[int, int], ...] | None

    @classmethod
    def of(cls, pieces: list[tuple[int, int]], size: int, name: str) -> Sparse:
        """Check a map: pieces in order, none over another, all within the file.  Raises FormatError."""
        end = 0
        for offset, length in pieces:
            if offset < end or length < 0:
                raise FormatError(f"{name}: the pieces of the sparse file overlap or are out of order")
            end = offset + length
        if end > size:
            raise FormatError(f"{name}: the pieces of the sparse file do not fit its size, {size}")
        return cls(size, tuple(piece for piece in pieces if piece[1]))


def old_map(block: bytes) -> tuple[list[tuple[int, int]], bool, int]:
    """Read what an old GNU header says: pieces, whether more of them follow, the expanded size."""
    pieces: list[tuple[int, int]] = []
    _read_old(block[_OLD_MAP], pieces)
    return pieces, block[_OLD_EXTENDED] != 0, number(block[_OLD_REALSIZE])


def extend_old_map(block: bytes, pieces: list[tuple[int, int]]) -> bool:
    """Add the pieces of a block that follows an old GNU header; return whether more follow."""
    _read_old(block[_MORE_MAP], pieces)
    if len(pieces) > _MAX_PIECES:
        raise TooLargeError(f"a sparse file has more than {_MAX_PIECES} pieces")
    return block[_MORE_EXTENDED] != 0


def _read_old(data: bytes, pieces: list[tuple[int, int]]) -> None:
    for start in range(0, len(data), _OLD_PIECE):
        piece = data[start : start + _OLD_PIECE]
        if not piece[0]:
            break  # a free place
        pieces.append((number(piece[:12]), number(piece[12:])))


def pax_sparse(records: list[tuple[bytes, bytes]], name: bytes) -> tuple[bytes, Sparse]:
    """Read the records that begin with ``GNU.sparse.``; return the file's name and its map.  Raises FormatError."""
    values = {key[len(_PREFIX) :]: value for key, value in records}
    name = values.get(b"name", name)
    major, minor = values.get(b"major", b"0"), values.get(b"minor", b"0")
    size = values.get(b"realsize", values.get(b"size"))
    if size is None:
        raise FormatError("a sparse file without a size")
    realsize = parse_decimal(size, "GNU.sparse.realsize")
    if (major, minor) == (b"1", b"0"):
        return name, Sparse(realsize, None)
    if major != b"0":
        raise FormatError("a sparse file of an unknown version")
    if b"map" in values:
        numbers = [parse_decimal(each, "GNU.sparse.map") for each in values[b"map"].split(b",") if each]
    else:
        numbers = _numbers_in_turn(records)
    pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
    count = values.get(b"numblocks")
    if len(numbers) % 2 or (count is not None and parse_decimal(count, "GNU.sparse.numblocks") != len(pieces)):
        raise FormatError("the map of a sparse file is incomplete")
    if len(pieces) > _MAX_PIECES:
        raise TooLargeError(f"a sparse file has more than {_MAX_PIECES} pieces")
    return name, Sparse.of(pieces, realsize, ascii(name[:200])[2:-1])


def _numbers_in_turn(records: list[tuple[bytes, bytes]]) -> list[int]:
    """Return the offsets and lengths of pax 0.0, an offset first."""
    numbers: list[int] = []
    for key, value in records:
        expected = b"numbytes" if len(numbers) % 2 else b"offset"
        if key == _PREFIX + expected:
            numbers.append(parse_decimal(value, "GNU.sparse.offset"))
        elif key in (_PREFIX + b"offset", _PREFIX + b"numbytes"):
            raise FormatError("the records of a sparse file are out of order")
    return numbers


def map_in_content(content: bytes, size: int, name: str) -> tuple[Sparse, int] | None:
    """Read the map before the content of a file of version 1.0, whose expanded size is ``size``.

    ``content`` is as much of the content as there is so far.  Returns the map and the number of bytes that it takes,
    or None if it is longer than that.  Raises FormatError, TooLargeError.
    """
    lines = content.split(b"\n", 1)
    if len(lines) == 1:
        if len(content) >= BLOCK:
            raise FormatError(f"{name}: the map of the sparse file is malformed")
        return None
    count = parse_decimal(lines[0], "sparse map")
    if count > _MAX_PIECES:
        raise TooLargeError(f"{name}: a sparse file has more than {_MAX_PIECES} pieces")
    lines = lines[1].split(b"\n", 2 * count)
    if len(lines) <= 2 * count:
        if len(content) > 2 * 21 * (count + 1):
            raise FormatError(f"{name}: the map of the sparse file is malformed")
        return None
    numbers = [parse_decimal(each, "sparse map") for each in lines[:-1]]
    taken = len(content) - len(lines[-1])
    pieces = list(zip(numbers[::2], numbers[1::2], strict=True))
    return Sparse.of(pieces, size, name), taken + padding(taken)
