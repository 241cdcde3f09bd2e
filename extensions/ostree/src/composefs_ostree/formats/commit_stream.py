"""A commit as one splitstream: a table of all its objects, sorted by id, and their bytes.

All integers are little-endian; the offsets count from the end of the table, in units of 8 bytes:

=====================  ================================================================================
u32                    index of the commit in the table
u32                    flags, 0
256 × u32              bucket ends: number of ids whose first byte is at most i
n × 32 bytes           ids, ascending
n × (u32, u32, u32)    offset / 8, length, index of the content in the stream's object references or 2³²-1
data                   the objects in table order, each zero-padded to 8 bytes
=====================  ================================================================================

Metadata objects are kept as they are; of a file object the head (:mod:`composefs_ostree.formats.fileheader`), followed
by its content unless that is an object of its own.  The table does not say what an id is: that follows from the walk.
External content is numbered in table order, equal content of two files once.

Format: composefs-rs 0.9.0, which reads these streams and whose streams this module reads.

A commit that is here in part only (``pull --subpath``, ``--commit-metadata-only``) has a stream of another name and
content type, which is ours: the same with flags 1, without the objects that are not here, and at the end the paths that
are, as GVariant ``as``, and the size of that (u32).  No path means: the commit object alone.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, count, islice
from mmap import mmap

from composefs_ext.errors import CorruptError, FormatError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.formats.names import ID_SIZE, is_commit_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO, Protocol

__all__ = [
    "CONTENT_TYPE",
    "IMAGE_REF",
    "PARTIAL_CONTENT_TYPE",
    "PARTIAL_PREFIX",
    "STREAM_PREFIX",
    "CommitStream",
    "Entry",
    "commit_of_stream",
    "inline_limit",
    "is_partial",
    "partial_name",
    "stream_name",
    "write",
]

CONTENT_TYPE = "afe138c18c463ef1"
IMAGE_REF = "composefs.image"
STREAM_PREFIX = "ostree-commit-"
PARTIAL_CONTENT_TYPE = "6f73747061727431"
PARTIAL_PREFIX = "ostree-partial-"

_FIXED = 8 + 256 * 4
_ROW = 12
_INLINE = 0xFFFFFFFF
_PARTIAL = 1
_PIECE = 1024
_PADDING = [bytes(-size & 7) for size in range(8)]


class Entry(NamedTuple):
    """One object: its bytes, and the composefs id of the content if that is kept outside."""

    data: bytes
    content: str | None


if TYPE_CHECKING:

    class Holder(Protocol):
        """What may hold objects of a commit already: another commit's stream, or an interrupted pull's cache."""

        def get(self, object_id: bytes) -> Entry | None:
            """Return the object if everything of it is here."""


def stream_name(commit: bytes) -> str:
    """Return the name of a commit's stream."""
    return STREAM_PREFIX + commit.hex()


def partial_name(commit: bytes) -> str:
    """Return the name of the stream of a commit that is here in part."""
    return PARTIAL_PREFIX + commit.hex()


def is_partial(name: str) -> bool:
    """Tell from the name of a stream whether its commit is here in part only."""
    return name.startswith(PARTIAL_PREFIX)


def commit_of_stream(name: str) -> bytes:
    """Return the commit id in the name of a stream; raise CorruptError if it is not the stream of an ostree commit."""
    for prefix in (STREAM_PREFIX, PARTIAL_PREFIX):
        if name.startswith(prefix) and is_commit_id(name.removeprefix(prefix)):
            return bytes.fromhex(name.removeprefix(prefix))
    raise CorruptError(f"the stream {name!r} is not an ostree commit", hint="another program made this ref; remove it")


def inline_limit(algorithm: str) -> int:
    """Return up to how many bytes a file's content stays in the stream (and in the image): two digests."""
    return {"sha256": 64, "sha512": 128}[algorithm]


def write(
    out: BinaryIO, commit: bytes, entries: Mapping[bytes, Entry], subpaths: Sequence[str] | None = None
) -> tuple[int, list[str]]:
    """Write a commit's objects, by id, as a stream's inline bytes; return their number and the object references.

    ``subpaths`` are what is here of a commit in part, None for a whole one.
    """
    ids = sorted(entries)
    # Column by column, in few calls: a pull lays out tens of thousands of objects while nobody else works.
    parts, contents = zip(*map(entries.__getitem__, ids), strict=True)
    sizes = list(map(len, parts))
    offsets = list(accumulate([(size + 7) >> 3 for size in sizes], initial=0))
    end = offsets.pop()
    if end > 0xFFFFFFFF:
        raise FormatError(f"commit {commit.hex()} has more metadata than a commit's stream can hold (32 GiB)")
    references = dict.fromkeys(contents)
    references.pop(None, None)
    numbers: dict[str | None, int] = dict(zip(references, count()))
    numbers[None] = _INLINE
    rows = zip(offsets, sizes, map(numbers.__getitem__, contents), strict=True)
    flags = 0 if subpaths is None else _PARTIAL
    buckets = [bisect_left(ids, bytes([first])) for first in range(1, 256)]
    out.write(struct.pack("<II256I", bisect_left(ids, commit), flags, *buckets, len(ids)))
    out.write(b"".join(ids))
    out.write(struct.pack(f"<{3 * len(ids)}I", *chain.from_iterable(rows)))
    padded = chain.from_iterable(zip(parts, [_PADDING[size & 7] for size in sizes], strict=True))
    out.writelines(b"".join(islice(padded, 2 * _PIECE)) for _ in range(0, len(ids), _PIECE))
    tail = b"" if subpaths is None else _subpaths_tail(subpaths)
    out.write(tail)
    return _FIXED + (ID_SIZE + _ROW) * len(ids) + 8 * end + len(tail), list(references)


def _subpaths_tail(subpaths: Sequence[str]) -> bytes:
    from composefs_ostree.formats import gvariant

    paths = gvariant.encode("as", list(subpaths))
    return paths + struct.pack("<I", len(paths))


class CommitStream:
    """The objects of a commit, looked up by id in the stream's inline bytes (which may be a memory map).

    The stream was written by somebody else, so every offset is checked where it is used; that the bytes have the id
    under which they stand is for the reader of that object to check.
    """

    def __init__(self, inline: bytes | mmap, references: list[str]) -> None:
        """``references`` are the stream's object references; raise FormatError if the table is inconsistent."""
        if len(inline) < _FIXED:
            raise FormatError("a commit's stream is shorter than its table")
        self._inline = inline
        self.references = references
        commit, flags, *buckets = struct.unpack_from("<II256I", inline)
        count = buckets[255]
        table = _FIXED + ID_SIZE * count
        self._data = table + _ROW * count
        if flags & ~_PARTIAL or buckets != sorted(buckets) or self._data > len(inline) or commit >= count:
            raise FormatError("a commit's stream has an inconsistent table")
        self._end = len(inline)
        self.subpaths: list[str] | None = self._read_subpaths() if flags else None
        """The paths that are here, None if all of the commit is."""
        ids = [inline[start : start + ID_SIZE] for start in range(_FIXED, table, ID_SIZE)]
        # The buckets are for programs that look up a few ids; for all of them a dictionary costs a quarter.
        self._rows = dict(zip(ids, struct.iter_unpack("<III", inline[table : self._data]), strict=True))
        self.commit_id: bytes = ids[commit]
        """The id of the commit."""

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self._rows)

    def get(self, object_id: bytes) -> Entry | None:
        """Return an object, or None if the commit does not have it."""
        row = self._rows.get(object_id)
        if row is None:
            return None
        offset, length, number = row
        start = self._data + 8 * offset
        end = start + length
        if end > self._end or (number != _INLINE and number >= len(self.references)):
            raise FormatError(f"object {object_id.hex()} lies outside of its commit's stream")
        return Entry(self._inline[start:end], None if number == _INLINE else self.references[number])

    def _read_subpaths(self) -> list[str]:
        from composefs_ostree.formats import gvariant

        tail = self._end - 4
        size = int.from_bytes(self._inline[tail:], "little") if tail >= self._data else self._end
        if self._data + size > tail:
            raise FormatError("the stream of a commit in part does not tell which part")
        self._end = tail - size
        paths: list[str] = gvariant.decode("as", self._inline[self._end : tail])
        if any(path[:1] != "/" or "" in path.split("/")[1:] for path in paths):
            raise FormatError("the stream of a commit in part names something else than paths")
        return paths
