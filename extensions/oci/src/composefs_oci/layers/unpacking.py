"""Taking a layer apart: its tar archive, as it comes, into what a splitstream is made of.

The content of each regular file over 64 bytes becomes a staged file of its own, or if it is small a part of one; every
other byte of the archive, to the last one of its padding, goes into one staged file, so that the stream gives the
archive back as it was.  That split is composefs-rs's, which checks it.

Nothing is kept but the chunks: an archive's size does not show in memory.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from composefs_ext.errors import CorruptError, FormatError, TooLargeError
from composefs_ext.packs import Packs
from composefs_oci.formats.digest import digest_of_hash, new_hash
from composefs_oci.formats.tar import BLOCK, Entry, Parser, padding
from composefs_oci.formats.tar.entries import INLINE_LIMIT, shown
from composefs_oci.layers.expand import MAX_EXPANDED, Expander

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from hashlib import _Hash
    from typing import BinaryIO, Protocol

    from composefs_ext.staging import Staging
    from composefs_oci.formats.tar.sparse import Sparse

    class Readable(Protocol):
        """What an archive is read from."""

        def read(self, size: int, /) -> bytes:
            """Return some bytes, up to ``size``; none at the end."""

    Note = Callable[[Entry, bytes | int], None]
    Take = Callable[[str, int, int | None], None]


__all__ = ["Unpacked", "unpack"]

READ_SIZE = 256 << 10
_LEAST = 4096
"""Bytes that are waited for: what comes byte by byte would be looked through anew for each byte of a long header."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MODE = 0o444
"""As objects have it: the core need not change it."""


def _note_nothing(_entry: Entry, _content: bytes | int) -> None:
    pass


class Unpacked(NamedTuple):
    """A layer taken apart.

    ``inline`` is the staged file of all bytes that are in no other file.  In ``chunks``, ``-n`` stands for the next n
    of them and ``i`` for the i-th file that was given away.  ``expanded`` are the numbers of sparse files that were
    written whole; no chunk names them.  ``files`` is how many were given away, ``size`` the archive's.
    """

    inline: str
    inline_size: int
    chunks: list[int]
    expanded: list[int]
    files: int
    size: int


def unpack(
    archive: Readable,
    staging: Staging,
    take: Take,
    *,
    diff_id: str,
    max_inline: int,
    packs: Packs | None = None,
    note: Note = _note_nothing,
) -> Unpacked:
    """Take a whole archive apart.

    ``take`` is called with the name and size of each staged file as it is complete and None, or with the pack, size and
    offset of a content in ``packs``; it may wait, so that not too much lies in staging.  ``diff_id`` is the digest that
    the archive must have, ``max_inline`` bounds the bytes that are in no file which is given away.  ``note`` is called
    for each entry in order, with a file's bytes if they are few, else with the number of the file that was given away
    for it.

    Raises CorruptError for another digest; FormatError or TooLargeError for an archive that no image can be made of;
    what was staged before that is of no use.
    """
    whole = new_hash(diff_id)
    inline = staging.new_name("inline")
    with staging.create(inline) as out:
        source = _Archive(archive, whole, out, max_inline)
        splitter = _Splitter(source, staging, take, packs or Packs(staging, ()), note)
        try:
            splitter.split()
        except (FormatError, TooLargeError) as error:
            if error.subject is not None:  # the blob that the archive is read from
                raise
            where = f"(before byte {source.position} of the archive)"
            raise type(error)(f"layer {diff_id}: {error.message} {where}", hint=error.hint, subject=diff_id) from None
    if (digest := digest_of_hash(whole)) != diff_id:
        raise CorruptError(
            f"the archive of a layer has the digest {digest}, not {diff_id}",
            hint="the image's config says so: it was damaged or put together wrongly",
            subject=diff_id,
        )
    return Unpacked(inline, source.inline_size, splitter.chunks, splitter.expanded, splitter.files, source.size)


class _Archive:
    """The archive's bytes in order: those that are not read as :meth:`content` go into the inline file.

    ``size`` is how many have come, ``inline_size`` how many the inline file has got.
    """

    def __init__(self, source: Readable, whole: _Hash, out: BinaryIO, max_inline: int) -> None:
        self._source = source
        self._whole = whole
        self._out = out
        self._max_inline = max_inline
        self._data = b""
        self._begin = 0  # of the inline bytes in it that are not written yet
        self._position = 0
        self.size = 0
        self.inline_size = 0

    @property
    def position(self) -> int:
        """The offset in the archive of what comes next."""
        return self.size - len(self._data) + self._position

    def take(self, size: int) -> bytes:
        """Return the next bytes; fewer at the archive's end."""
        while self._position + size > len(self._data) and self._read():
            pass
        piece = self._data[self._position : self._position + size]
        self._position += len(piece)
        return piece

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield the next bytes as they come.  Raises FormatError if the archive ends before."""
        while size:
            if self._position == len(self._data) and not self._read():
                raise _cut_short()
            piece = memoryview(self._data)[self._position : self._position + size]
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def content(self, size: int) -> Iterator[memoryview]:
        """Yield the next bytes as :meth:`pieces` does; they are kept elsewhere."""
        self.flush()
        for piece in self.pieces(size):
            self._begin = self._position
            yield piece

    def finish(self) -> None:
        """Take all that is left; to look for more is to write what there was."""
        self._position = len(self._data)
        while self._read():
            self._position = len(self._data)

    def flush(self) -> None:
        """Give the inline file its bytes up to here.  Raises TooLargeError."""
        data = memoryview(self._data)[self._begin : self._position]
        self._begin = self._position
        self.inline_size += len(data)
        if self.inline_size > self._max_inline:
            raise TooLargeError(
                f"the headers and small files of the layer have more than {self._max_inline} bytes",
                hint="a layer with so many files cannot be kept; split it into several",
            )
        self._out.write(data)

    def _read(self) -> bool:
        """Read on, behind what has not been taken yet; return whether there was more."""
        data = self._source.read(READ_SIZE)
        while 0 < len(data) < _LEAST and (more := self._source.read(READ_SIZE)):
            data += more
        self._whole.update(data)
        self.flush()
        self._data = self._data[self._position :] + data
        self._begin = self._position = 0
        self.size += len(data)
        return bool(data)


class _Splitter:
    """Takes an archive apart; ``chunks``, ``expanded`` and ``files`` are what :class:`Unpacked` has."""

    def __init__(self, archive: _Archive, staging: Staging, take: Take, packs: Packs, note: Note) -> None:
        self._archive = archive
        self._staging = staging
        self._take = take
        self._packs = packs
        self._note = note
        self._run_begin = 0  # of the inline bytes since the last content, in the inline file
        self._expanded_bytes = 0
        self.chunks: list[int] = []
        self.expanded: list[int] = []
        self.files = 0

    def split(self) -> None:
        """Take everything apart.  Raises FormatError or TooLargeError.

        About 10 µs an entry, half of them the parser's; opening, writing and closing the staged file of a content, if
        it is too large for a pack, takes as long again.
        """
        archive, note, parser = self._archive, self._note, Parser()
        while not parser.ended:
            wanted = parser.wanted
            block = archive.take(wanted or BLOCK)
            if len(block) < (wanted or BLOCK):
                if block:
                    raise _cut_short()
                break
            entry = parser.extension(block) if wanted else parser.header(block)
            if entry is None:
                continue
            size = entry.size
            if entry.sparse is not None:
                note(entry, self._sparse(entry, entry.sparse))
            elif entry.external:
                note(entry, self._external(size, archive.content(size)))
            else:
                note(entry, b"".join(archive.pieces(size)) if size else b"")
            # It may be missing after the last entry: so ``umoci insert`` ends an archive, and Go's reader takes it.
            archive.take(padding(size))
        parser.finish()
        archive.finish()
        if archive.inline_size > self._run_begin:
            self.chunks.append(self._run_begin - archive.inline_size)

    def _external(self, size: int, pieces: Iterator[memoryview]) -> int:
        """Give a content away, in a pack or as a file of its own; return its number."""
        if size <= self._packs.largest:
            name, offset = self._packs.add(b"".join(pieces))
        else:
            name, offset = self._staging.new_name(), None
            fd = self._create(name)
            try:
                for piece in pieces:
                    while piece:
                        piece = piece[os.write(fd, piece) :]
            finally:
                os.close(fd)
        inline_size = self._archive.inline_size
        self.chunks += (self._run_begin - inline_size, self.files)  # there is a header before every content
        self._run_begin = inline_size
        return self._give(name, size, offset)

    def _sparse(self, entry: Entry, sparse: Sparse) -> int | bytes:
        """Write a sparse file whole beside its pieces; return its number, or its bytes if they are few."""
        self._expanded_bytes += sparse.size
        if self._expanded_bytes > MAX_EXPANDED:
            raise TooLargeError(f"the sparse files of the layer have more than {MAX_EXPANDED} bytes when expanded")
        name = self._staging.new_name("sparse")
        fd = self._create(name)
        try:
            expander = Expander(sparse, fd, shown(entry.path))
            if entry.external:
                self._external(entry.size, expander.through(self._archive.content(entry.size)))
            else:
                for piece in self._archive.pieces(entry.size):
                    expander.write(piece)
            size = expander.finish()
        finally:
            os.close(fd)
        if size <= INLINE_LIMIT:
            return self._staging.read(name)
        self.expanded.append(self._give(name, size))
        return self.expanded[-1]

    def _create(self, name: str) -> int:
        return os.open(self._staging.path_of(name), _FLAGS, _MODE)

    def _give(self, name: str, size: int, offset: int | None = None) -> int:
        """Give a staged file away; return its number."""
        self._take(name, size, offset)
        self.files += 1
        return self.files - 1


def _cut_short() -> FormatError:
    return FormatError("the archive ends within an entry", hint="it was cut short when it was made")
