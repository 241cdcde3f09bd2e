"""Taking a layer apart: its tar archive, as it comes, into what a splitstream is made of.

The content of each regular file over 64 bytes becomes a staged file of its own, or if it is small a part of one; every
other byte of the archive, to the last one of its padding, goes into one staged file, so that the stream gives the
archive back as it was.  That split is composefs-rs's, which checks it.

Nothing is kept but the chunks: an archive's size does not show in memory.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
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
    from typing import Protocol

    from composefs_ext.staging import Staging

    class Readable(Protocol):
        """What an archive is read from."""

        def read(self, size: int, /) -> bytes:
            """Return some bytes, up to ``size``; none at the end."""

    Note = Callable[[Entry, bytes | int], None]
    Take = Callable[[str, int, int | None], None]


__all__ = ["MAX_INLINE", "Unpacked", "unpack"]

READ_SIZE = 256 << 10
MAX_INLINE = 4 << 30
"""Bytes that are no external content, unless the core says otherwise."""

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_MODE = 0o444
"""As objects have it: the core need not change it."""


def _note_nothing(_entry: Entry, _content: bytes | int) -> None:
    pass


class Unpacked(NamedTuple):
    """A layer taken apart.

    ``inline`` is the staged file of all bytes that are in no other file.  In ``chunks``, ``-n`` stands for the next n
    of them and ``i`` for the i-th file that was given away.  ``expanded`` are the sparse files that were written whole,
    in their order in the archive: their numbers, counted alike, or their bytes if they are few; no chunk names them.
    ``files`` is how many were given away, ``size`` the archive's, ``diff_id`` its digest.
    """

    inline: str
    inline_size: int
    chunks: list[int]
    expanded: list[int | bytes]
    files: int
    size: int
    diff_id: str


def unpack(
    archive: Readable,
    staging: Staging,
    take: Take,
    *,
    packs: Packs | None = None,
    diff_id: str | None = None,
    max_inline: int = MAX_INLINE,
    note: Note = _note_nothing,
) -> Unpacked:
    """Take a whole archive apart.

    ``take`` is called with the name and size of each staged file as it is complete and None, or with the pack, size and
    offset of a content in ``packs``; it may wait, so that not too much lies in staging.  ``diff_id`` is the digest that
    the archive must have, with its algorithm before a colon; without one it is measured in sha256.  ``note`` is called
    for each entry in order, with a file's bytes if they are few, else with the number of the file that is given away
    for it, now or later.

    Raises CorruptError for another digest; FormatError or TooLargeError for an archive that no image can be made of;
    what was staged before that is of no use.
    """
    whole = new_hash(diff_id or "sha256:")
    splitter = _Splitter(staging, take, Packs(staging, ()) if packs is None else packs, max_inline, note)
    try:
        while data := archive.read(READ_SIZE):
            whole.update(data)
            with _named(diff_id):
                splitter.feed(data)
        with _named(diff_id):
            layer = splitter.finish(digest_of_hash(whole))
    finally:
        splitter.close()
    if diff_id not in (None, layer.diff_id):
        raise CorruptError(
            f"the archive of a layer has the digest {layer.diff_id}, not {diff_id}",
            hint="the image's config says so: it was damaged or put together wrongly",
            subject=diff_id,
        )
    return layer


@contextmanager
def _named(diff_id: str | None) -> Iterator[None]:
    """Put the layer's name before what is wrong with it."""
    try:
        yield
    except (FormatError, TooLargeError) as error:
        if diff_id is None:
            raise
        raise type(error)(f"layer {diff_id}: {error.message}", hint=error.hint, subject=diff_id) from None


class _Splitter:
    """The state between two pieces of an archive: give all to :meth:`feed`, then :meth:`finish` and :meth:`close`."""

    def __init__(self, staging: Staging, take: Take, packs: Packs, max_inline: int, note: Note) -> None:
        self._staging = staging
        self._take = take
        self._note = note
        self._packs = packs
        self._max_inline = max_inline
        self._parser = Parser()
        self._inline = staging.new_name("inline")
        self._out = staging.create(self._inline)
        self._inline_size = 0
        self._run = 0  # inline bytes since the last file
        self._rest = b""  # the beginning of a header
        self._pass = 0  # inline bytes of content and padding that still have to come
        self._left = 0  # bytes of the external content at hand that still have to come
        self._fd = -1
        self._file = ""
        self._part: bytes | None = None  # what has come of an external content that goes into a pack
        self._padding = 0  # what of that is padding
        self._small: bytes | None = None  # what has come of an inline content
        self._size = 0
        self._chunks: list[int] = []
        self._files = 0
        self._entry: Entry | None = None
        self._expansion: _Expansion | None = None
        self._expanded: list[int | bytes] = []
        self._expanded_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes.  Raises FormatError or TooLargeError.

        One loop with local names: about 10 µs an entry, half of them the parser's; opening, writing and closing the
        staged file of a content, if it is too large for a pack, takes as long again.
        """
        self._size += len(data)
        if self._rest:
            data = self._rest + data
        position, end = 0, len(data)
        begin = 0  # of the inline bytes in data that are not written yet
        parser, note = self._parser, self._note
        try:
            while True:
                if self._left:
                    position = begin = self._content(data, position)
                    if self._left:
                        break
                if self._pass:
                    if self._expansion is not None and self._expansion.left:
                        self._expansion.write(memoryview(data)[position : position + self._pass])
                    elif self._small is not None:
                        self._gather(data[position : position + INLINE_LIMIT])
                    if self._pass > end - position:
                        self._pass -= end - position
                        position = end
                        break
                    position += self._pass
                    self._pass = 0
                if self._expansion is not None:
                    self._end_expansion()
                if parser.ended:
                    position = end
                    break
                wanted = parser.wanted
                next_position = position + (wanted or BLOCK)
                if next_position > end:
                    break
                piece = data[position:next_position]
                position = next_position
                entry = parser.extension(piece) if wanted else parser.header(piece)
                if entry is None:
                    continue
                if entry.sparse is not None:
                    self._begin_expansion(entry)
                size = entry.size
                if entry.external:
                    self._write_inline(memoryview(data)[begin:position])
                    self._begin_file(entry)
                elif size:
                    self._padding = padding(size)
                    self._pass = size + self._padding
                    if entry.sparse is None:
                        self._entry, self._small = entry, b""
                elif entry.sparse is None:
                    note(entry, b"")
        except (FormatError, TooLargeError) as error:
            where = self._size - (end - position)
            raise type(error)(f"{error.message} (before byte {where} of the archive)", hint=error.hint) from None
        if begin < position:
            self._write_inline(data if begin == 0 and position == end else memoryview(data)[begin:position])
        self._rest = data[position:]

    def finish(self, diff_id: str) -> Unpacked:
        """Say that all has come.  Raises FormatError if the archive is cut short.

        The padding of the last entry may be missing: so ``umoci insert`` ends an archive, and Go's reader takes it.
        """
        if self._rest or self._left or self._pass > self._padding:
            raise FormatError(
                f"the archive ends within an entry, after {self._size} bytes", hint="it was cut short when it was made"
            )
        if self._expansion is not None:
            self._end_expansion()
        self._parser.finish()
        if self._run:
            self._chunks.append(-self._run)
        self._out.close()
        return Unpacked(
            self._inline,
            self._inline_size,
            self._chunks,
            self._expanded,
            self._files,
            self._size,
            diff_id,
        )

    def close(self) -> None:
        """Close what is open.  Staged files stay: staging ends with the run."""
        self._out.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._expansion is not None:
            self._expansion.close()

    def _write_inline(self, data: bytes | memoryview) -> None:
        size = len(data)
        self._run += size
        self._inline_size += size
        if self._inline_size > self._max_inline:
            raise TooLargeError(
                f"the headers and small files of the layer have more than {self._max_inline} bytes",
                hint="a layer with so many files cannot be kept; split it into several",
            )
        self._out.write(data)

    def _begin_file(self, entry: Entry) -> None:
        self._chunks.append(-self._run)  # there is a header before every content
        self._run = 0
        self._chunks.append(self._files)
        self._entry = entry
        self._left = entry.size
        if entry.size <= self._packs.largest:
            self._part = b""
        else:
            self._file = self._staging.new_name()
            self._fd = os.open(self._staging.path_of(self._file), _FLAGS, _MODE)
        if entry.sparse is None:
            self._note(entry, self._files)

    def _content(self, data: bytes, position: int) -> int:
        """Write what there is of an external content; return where it ends in ``data``."""
        stop = min(position + self._left, len(data))
        piece = memoryview(data)[position:stop]
        self._left -= len(piece)
        if self._expansion is not None:
            self._expansion.write(piece)
        if self._part is not None:
            self._part += piece
        else:
            while piece:
                piece = piece[os.write(self._fd, piece) :]
        if not self._left:
            self._end_file()
        return stop

    def _end_file(self) -> None:
        assert self._entry is not None
        size = self._entry.size
        self._pass = self._padding = padding(size)
        if self._part is not None:
            name, offset = self._packs.add(self._part)
            self._part = None
            self._give(name, size, offset)
        else:
            fd, self._fd = self._fd, -1
            os.close(fd)
            self._give(self._file, size)

    def _gather(self, data: bytes) -> None:
        """Take more of an inline content, which may come in pieces, and what follows it."""
        entry, small = self._entry, self._small
        assert entry is not None
        assert small is not None
        small += data[: entry.size - len(small)]
        if len(small) < entry.size:
            self._small = small
        else:
            self._small = None
            self._note(entry, small)

    def _give(self, name: str, size: int, offset: int | None = None) -> None:
        self._files += 1
        self._take(name, size, offset)

    def _begin_expansion(self, entry: Entry) -> None:
        assert entry.sparse is not None
        self._expanded_bytes += entry.sparse.size
        if self._expanded_bytes > MAX_EXPANDED:
            raise TooLargeError(f"the sparse files of the layer have more than {MAX_EXPANDED} bytes when expanded")
        self._expansion = _Expansion(self._staging, entry)

    def _end_expansion(self) -> None:
        expansion, self._expansion = self._expansion, None
        assert expansion is not None
        size = expansion.finish()
        if size > INLINE_LIMIT:
            content: int | bytes = self._files
            self._give(expansion.name, size)
        else:
            content = self._staging.read(expansion.name)
        self._expanded.append(content)
        self._note(expansion.entry, content)


class _Expansion:
    """A sparse file that is being written whole."""

    def __init__(self, staging: Staging, entry: Entry) -> None:
        assert entry.sparse is not None
        self.name = staging.new_name("sparse")
        self.entry = entry
        self.left = entry.size
        self._fd = os.open(staging.path_of(self.name), _FLAGS, _MODE)
        self._expander = Expander(entry.sparse, self._fd, shown(entry.path))

    def write(self, data: memoryview) -> None:
        """Take content; what is padding after it is left out."""
        data = data[: self.left]
        self.left -= len(data)
        self._expander.write(data)

    def finish(self) -> int:
        size = self._expander.finish()
        self.close()
        return size

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
