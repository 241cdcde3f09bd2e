"""The operations of a delta's part: a byte each, and its operands as LEB128 numbers.

====  ==============================  ==================================================================
S     size, offset                    a metadata object, whole, from the blob
S     mode, xattrs, size, offset      a file, whole, from the blob; of a symlink the target is there
o     mode, xattrs, size              begin a regular file
r     offset                          read from the file now whose id is at this offset in the blob
R                                     read from the blob again
w     size, offset                    append bytes of what is read from
B     offset, size                    append all that the patch in the blob makes of what is read from
c                                     end the file; read from the blob again
====  ==============================  ==================================================================

Objects are made in the order in which the superblock lists them.  No operation can reach outside of the blob or of a
file, no object can become longer than it says, and all of them not much longer than the superblock says.  What is kept
in memory, metadata, is bounded whatever that says.

Source: ostree-repo-static-delta-private.h and -processing.c of libostree describe the operations.
"""

from __future__ import annotations

import os
from hashlib import sha256

from composefs_ext.errors import CorruptError, FormatError, TooLargeError
from composefs_ostree.deltas.bspatch import bspatch
from composefs_ostree.deltas.output import FileOutput, Heads, metadata_row, small_row
from composefs_ostree.formats.names import ID_SIZE, MAX_METADATA, ObjectType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from composefs_ostree.deltas.payload import Members
    from composefs_ostree.deltas.superblock import Part
    from composefs_ostree.fetching.stage import Row, SmallContents

    Sources = Callable[[bytes], memoryview]
    """Return the content of a file of the old commit; raise MissingObjectError."""

__all__ = ["Program"]

MAX_OPERATIONS = 8_000_000
_MAX_BYTES = 64 << 20
_NUMBER_BYTES = 10
_SLACK = 1 << 20
_MOST_READ = 4
_READ_SLACK = 64 << 20
"""Bytes of old files that may be brought in before another one, for each byte of the files that were made, and besides.

ostree's programs read from one file for each, which is about as long.
"""
_WRITE = 1 << 20
_SMALLER = "have the delta made with a smaller --max-chunk-size"


class Program:
    """The program of one part, carried out by ``run``."""

    def __init__(self, part: Part, members: Members, sources: Sources, staged: str, small: SmallContents) -> None:
        """Staged files get names that begin with ``staged``."""
        if len(members.operations) > _MAX_BYTES:
            raise TooLargeError(f"the delta's part has more than {_MAX_BYTES} bytes of operations", hint=_SMALLER)
        self._part = part
        self._blob = members.blob
        self._heads = Heads(members.modes, members.xattrs)
        self._code = bytes(members.operations)
        self._at = 0
        self._sources = sources
        self._source: memoryview | None = None
        self._old: tuple[bytes, memoryview] | None = None  # id and content of the last source
        self._left_to_read = _READ_SLACK
        self._staged = staged
        self._small = small
        self._number = 0
        self._left = 2 * part.plain + _SLACK
        self._metadata_left = MAX_METADATA
        self._file: FileOutput | None = None

    def run(self) -> Iterator[Row]:
        """Yield a row for each object, the last one only when nothing behind it is wrong: with it the part is done.

        Raises FormatError for a program that makes no sense, CorruptError for an object that has not its id,
        MissingObjectError for a source that is not there, TooLargeError for what is beyond our limits.
        """
        code = self._code
        last: Row | None = None
        steps: dict[int, Callable[[], Row | None]] = {
            ord("S"): self._whole,
            ord("o"): self._open,
            ord("r"): self._read_from,
            ord("R"): self._read_from_blob,
            ord("w"): self._write,
            ord("B"): self._patch,
            ord("c"): self._close,
        }
        try:
            for _ in range(MAX_OPERATIONS):
                if self._at >= len(code):
                    break
                step = steps.get(code[self._at])
                if step is None:
                    raise FormatError(f"the operation {code[self._at]} does not exist")
                self._at += 1
                row = step()
                if row is None:
                    continue
                if self._number == self._part.object_count:
                    last = row
                else:
                    yield row
            else:
                raise TooLargeError(f"the delta's part has more than {MAX_OPERATIONS} operations", hint=_SMALLER)
            if self._file is not None or self._number != self._part.object_count:
                raise FormatError(f"its program ends after {self._number} of {self._part.object_count} objects")
            if last is not None:
                row, last = last, None
                yield row
        finally:
            if self._file is not None:
                self._file.discard()
            if last is not None and isinstance(last[3], str):
                os.unlink(last[3])

    def _operand(self) -> int:
        code = self._code
        value = shift = 0
        for _ in range(_NUMBER_BYTES):
            if self._at >= len(code):
                raise FormatError("its program ends inside of an operation")
            byte = code[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise FormatError("a number in its program has more than 10 bytes")

    def _from_blob(self, offset: int, size: int) -> memoryview:
        if offset + size > len(self._blob):
            raise FormatError(f"its program reads {size} bytes at {offset} of a blob of {len(self._blob)}")
        return self._blob[offset : offset + size]

    def _next_object(self) -> tuple[int, bytes]:
        if self._file is not None:
            raise FormatError("its program begins an object inside of another one")
        if self._number == self._part.object_count:
            raise FormatError(f"its program makes more than {self._part.object_count} objects")
        self._number += 1
        return self._part.object(self._number - 1)

    def _count(self, size: int) -> None:
        """Count what an object will have, before anything of it is made."""
        self._left -= size
        if self._left < 0:
            raise CorruptError(f"its objects become longer than the {self._part.plain} bytes that its superblock tells")

    def _begin(self, file_id: bytes, mode: int, xattrs: int, size: int) -> FileOutput:
        self._count(size)
        head, checked = self._heads.file(mode, xattrs, size)
        staged = f"{self._staged}-{self._number}" if size > self._small.largest else None
        return FileOutput(file_id, head, checked, size, staged, self._small)

    # Operations

    def _whole(self) -> Row:
        kind, object_id = self._next_object()
        if kind != ObjectType.FILE:
            size = self._operand()
            data = self._from_blob(self._operand(), size)
            self._count(size)
            self._metadata_left -= size
            if self._metadata_left < 0:
                raise TooLargeError(f"the delta's part has more than {MAX_METADATA} bytes of metadata", hint=_SMALLER)
            return metadata_row(object_id, bytes(data))
        mode, xattrs, size = self._operand(), self._operand(), self._operand()
        content = self._from_blob(self._operand(), size)
        if self._heads.is_symlink(mode):
            return self._heads.symlink_row(object_id, mode, xattrs, content)
        if size <= self._small.largest:
            self._count(size)
            head, checked = self._heads.file(mode, xattrs, size)
            return small_row(self._small, object_id, head, sha256(checked), content)
        self._file = self._begin(object_id, mode, xattrs, size)
        self._file.write(content)
        return self._finish()

    def _open(self) -> None:
        kind, file_id = self._next_object()
        mode, xattrs, size = self._operand(), self._operand(), self._operand()
        if kind != ObjectType.FILE:
            raise FormatError("its program begins a file where it should make metadata")
        self._file = self._begin(file_id, mode, xattrs, size)

    def _read_from(self) -> None:
        file_id = bytes(self._from_blob(self._operand(), ID_SIZE))
        # ostree's programs come back to it behind whatever else they write, and to bring a file in takes a while.
        if self._old is None or self._old[0] != file_id:
            self._source = self._old = None
            if self._left_to_read < 0:
                raise TooLargeError("its program reads far more of old files than it makes of them")
            self._old = file_id, self._sources(file_id)
            self._left_to_read -= len(self._old[1])
        self._source = self._old[1]

    def _read_from_blob(self) -> None:
        self._source = None

    def _write(self) -> None:
        size, offset = self._operand(), self._operand()
        if self._file is None:
            raise FormatError("its program writes where no file is begun")
        if self._source is None:
            self._file.write(self._from_blob(offset, size))
            return
        if offset + size > len(self._source):
            raise CorruptError(f"its program reads {size} bytes at {offset} of a file of {len(self._source)}")
        # Pieces, so that pages of a large old file can go again.
        for start in range(offset, offset + size, _WRITE):
            self._file.write(self._source[start : min(start + _WRITE, offset + size)])

    def _patch(self) -> None:
        offset, size = self._operand(), self._operand()
        if self._file is None or self._source is None:
            raise FormatError("its program patches where no file is begun, or none to read from")
        for piece in bspatch(self._source, self._from_blob(offset, size), self._file.left):
            self._file.write(piece)

    def _close(self) -> Row:
        if self._file is None:
            raise FormatError("its program ends a file where none is begun")
        self._source = None
        return self._finish()

    def _finish(self) -> Row:
        assert self._file is not None
        row = self._file.finish()
        self._left_to_read += _MOST_READ * self._file.size
        self._file = None
        return row
