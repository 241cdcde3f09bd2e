"""From the ``.filez`` of an archive repository to a verified file in staging.

The content is inflated, hashed and written as it comes, and never beyond the size that the header tells: a file that is
shorter or longer than that, has something behind its end, or does not hash to its id is refused.  Small content is not
written but returned, because it becomes a part of the commit's stream.
"""

from __future__ import annotations

import os
from functools import lru_cache
from hashlib import sha256

from composefs_ext.errors import CorruptError, NoSpaceError
from composefs_ostree.fetching.stage import check_space, create_staged, stage_bytes, write_all
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.formats.fileheader import PREFIX_SIZE, checksum_header, content_size, head_size, parse_head
from composefs_ostree.formats.names import ObjectType, object_path
from composefs_ostree.inflate import InflateError, zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.fetching.stage import Row, SmallContents

__all__ = ["RAW_DEFLATE", "FileFetch", "unpack_small"]

RAW_DEFLATE = -15
"""What zlib calls a stream without header and checksum, by its window bits."""

_WHOLE_COMPRESSED = 256 << 10
_WHOLE_PLAIN = 1 << 20
"""Up to both, a file is inflated in one call; larger ones pass in pieces, so that memory does not follow them."""

_TRIED = 64 << 20
"""Bytes that are written of content which claims to be larger than the disk: most likely its header is damaged."""

_PIECE = 256 << 10
_CACHED_HEADS = 1024
_CACHED_HEAD = 4096
"""How many heads are remembered, and bytes of the largest."""


class _Unpacker:
    """The content of one ``.filez``, fed in pieces.

    Raises FormatError or CorruptError, without the file's name, as early as it can.
    """

    def __init__(self, file_id: bytes, head: bytes, staged: str, inline_limit: int) -> None:
        """Content of up to ``inline_limit`` bytes is kept in memory, other content goes to the new file ``staged``."""
        parsed = parse_head(head)
        self._id = file_id
        self._head = head
        self._is_symlink = parsed.is_symlink
        self._size = parsed.size
        # What a sane deflate stream of this content can take at most; else endless empty blocks would never end.
        self._most_compressed = self._size + self._size // 8 + 65536
        self._staged = staged
        self._hash = sha256(checksum_header(head))
        self._inflater = zlib.decompressobj(RAW_DEFLATE)
        self._produced = self._compressed = 0
        self._inline = b""
        self._fd: int | None = None
        self._no_space: NoSpaceError | None = None
        if self._size > inline_limit:
            self._fd = create_staged(staged)
            try:
                check_space(self._fd, self._size)
            except NoSpaceError as error:
                self._no_space = error

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._compressed += len(data)
        if data and (self._is_symlink or self._inflater.eof):
            raise CorruptError("there are bytes behind its end")
        if self._compressed > self._most_compressed:
            raise CorruptError(f"{self._compressed} compressed bytes for a content of {self._size}")
        while not self._inflater.eof:
            try:
                piece = self._inflater.decompress(data, _PIECE)
            except InflateError as error:
                raise CorruptError(f"its content is not a deflate stream: {error}") from error
            data = self._inflater.unconsumed_tail
            self._produced += len(piece)
            if self._produced > self._size:
                raise CorruptError(f"its content is longer than the {self._size} bytes that its header tells")
            if self._no_space is not None and self._produced > _TRIED:
                raise self._no_space
            self._hash.update(piece)
            if self._fd is None:
                self._inline += piece
            else:
                write_all(self._fd, piece)
            if len(piece) < _PIECE and not data:
                break
        if self._inflater.unused_data:
            raise CorruptError("there are bytes behind its end")

    def finish(self) -> Row:
        """Return the row of the file, after the last byte."""
        if self._produced != self._size or not (self._is_symlink or self._inflater.eof):
            raise CorruptError(f"it ends after {self._produced} of {self._size} bytes of content")
        if self._hash.digest() != self._id:
            raise CorruptError("its checksum does not match its name")
        staged = None if self._fd is None else self._staged
        self._close()
        return self._id, self._head + self._inline, self._size, staged

    def discard(self) -> None:
        """Remove what was written."""
        if self._fd is not None:
            self._close()
            os.unlink(self._staged)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def unpack_small(file_id: bytes, data: bytes, staged: str, small: SmallContents) -> Row | None:
    """Do what _Unpacker does in a few calls: nine objects of ten come this way.  None: it is not small after all."""
    if len(data) < PREFIX_SIZE or len(data) < (start := head_size(data)):
        return None
    head = data[:start]
    size = content_size(head)
    if size > _WHOLE_PLAIN:
        return None
    hashed_before = _cached_hashed_before if start <= _CACHED_HEAD else _hashed_before
    header = hashed_before(b"%b%b" % (head[:8], head[16:]))
    if header is None:
        return None
    inflater = zlib.decompressobj(RAW_DEFLATE)
    try:
        content = inflater.decompress(memoryview(data)[start:], size + 1)
    except InflateError:
        return None
    digest = sha256(header)
    digest.update(content)
    if len(content) != size or not inflater.eof or inflater.unused_data or digest.digest() != file_id:
        return None  # _Unpacker finds the words for it
    if size <= small.largest:
        return small.row(file_id, head, content)
    stage_bytes(content, staged)
    return file_id, head, size, staged


def _hashed_before(head: bytes) -> bytes | None:
    """Return what is hashed before the content of a regular file, from its head without the size; None for others.

    Files have few heads apart from sizes, and reading one takes as long as hashing 2 kB.
    """
    whole = head[:8] + bytes(8) + head[8:]
    return None if parse_head(whole).is_symlink else checksum_header(whole)


_cached_hashed_before = lru_cache(_CACHED_HEADS)(_hashed_before)


class FileFetch(Fetch):
    """The fetch of a content object: collected while it is small, otherwise unpacked as it comes."""

    collects = False

    __slots__ = ("_collected", "_small", "_staged", "_unpacker", "file_id")

    def __init__(self, file_id: bytes, staged: str, small: SmallContents) -> None:
        super().__init__(object_path(ObjectType.FILE, file_id))
        self.file_id = file_id
        self._staged = staged
        self._small = small
        self._unpacker: _Unpacker | None = None

    def begin(self) -> None:
        """Start again, without what an earlier attempt has written."""
        super().begin()
        self._collected = _WHOLE_COMPRESSED
        self.discard()

    def _take(self, data: bytes) -> None:
        if self._unpacker is not None:
            self._unpacker.feed(data)
            return
        self._keep(data)
        if self._received > self._collected:
            self._unpack()

    def finish(self) -> Row:
        """Return the row of the file, once the fetch has ended; raise its error, or what is wrong."""
        if self.error is not None:
            raise self.error
        if self._unpacker is None:
            row = unpack_small(self.file_id, self.data, self._staged, self._small)
            if row is not None:
                return row
            self._unpack()
        if self._unpacker is None:
            raise CorruptError(f"it ends after {self._received} bytes, inside of its header")
        return self._unpacker.finish()

    def discard(self) -> None:
        """Remove what an attempt has written."""
        if self._unpacker is not None:
            self._unpacker.discard()
            self._unpacker = None

    def _unpack(self) -> None:
        """Go on in pieces, if all of the head is here; else do so once it is, as what came is joined each time."""
        data = self.data
        if len(data) < PREFIX_SIZE:
            return
        size = head_size(data)
        if len(data) < size:
            self._collected = size - 1
        else:
            self._unpacker = _Unpacker(self.file_id, data[:size], self._staged, self._small.inline_limit)
            self._parts = []
            self._unpacker.feed(memoryview(data)[size:])
