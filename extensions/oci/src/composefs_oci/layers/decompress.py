"""Layers as the tars that they are, whatever they are compressed with: gzip with many members, zstd with many frames.

Which of them it is, if any, the first bytes say, as they do to podman and Docker: media types are wrong in images that
those open.  An archive may begin with any name, so what has a tar header's checksum is taken for one first.  Whoever
makes a blob that looks like both gains nothing: what comes of it has to have the layer's digest in any case.

zstd:chunked layers end with skippable frames (RFC 8878, 3.1.2), which hold no data.  All else that follows compressed
data is refused: two readers could disagree about it.  Memory is bounded by zstd's window, at most 128 MiB, and by the
size of the pieces that are asked for, however much a layer inflates to.
"""

from __future__ import annotations

import contextlib
import zlib

from composefs_ext.errors import FormatError, TooLargeError, UnsupportedError
from composefs_oci.formats.json_document import AGAIN
from composefs_oci.formats.tar.header import BLOCK, parse_header
from composefs_oci.sources.source import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any, Protocol

    from composefs_oci.layers.unpacking import Readable

    class Compressed(Protocol):
        """A blob, or what reads one; ``where`` names it in messages."""

        where: str

        def read(self, size: int = ...) -> bytes:
            """Return the next bytes, at most ``size`` of them; none at the end, when it was right to its end."""


__all__ = ["open_tar"]

_MAX_WINDOW = 128 << 20
_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A50
_GZIP = 31
"""What zlib calls a gzip file, by its window bits."""
_FLAGS = 3
"""Where a member's header has its flags."""
_ONE_FIELD = frozenset({0, 4, 8, 16})
"""Flags but that of a text: no field behind the header, or one of extra field, name and comment."""

_ANEW = "have it compressed anew: skopeo copy --dest-compress-format=gzip … oci:PATH:TAG, and pull that"


def open_tar(blob: Compressed) -> Readable:
    """Return what reads the uncompressed tar of a layer; it is not closed with its reader.

    Its ``read(size)`` returns at most so many bytes, and none at the end, when the blob was right to its end too.  Both
    raise CorruptError for the blob and FormatError or TooLargeError for its compression, of which one that is not read
    here is an UnsupportedError.
    """
    begun = _Begun(blob)
    with contextlib.suppress(FormatError):
        if len(begun.head) >= BLOCK:
            parse_header(begun.head[:BLOCK])
            return begun
    number = int.from_bytes(begun.head[:4], "little")
    if begun.head.startswith(b"\x1f\x8b\x08"):
        return _Gzip(begun)
    if number == _MAGIC or number >> 4 == _SKIPPABLE >> 4:
        return _Zstd(begun)
    for magic, name in ((b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz")):
        if begun.head.startswith(magic):
            raise UnsupportedError.at(blob.where, f"the layer is compressed with {name}", hint=_ANEW)
    return begun


class _Begun:
    """A blob whose ``head``, a block or more if it has them, was read to be looked at, and comes once more."""

    def __init__(self, blob: Compressed) -> None:
        self.where = blob.where
        self.head = b""
        self._blob = blob
        while len(self.head) < BLOCK and (data := blob.read()):
            self.head += data

    def read(self, *size: int) -> bytes:
        """Return the next bytes, at most ``size`` of them; none at the end."""
        if not self.head:
            return self._blob.read(*size)
        end = size[0] if size else len(self.head)
        data, self.head = self.head[:end], self.head[end:]
        return data


def _zlib() -> Any:
    """Return ISA-L, which takes half of the time, where it can be had, on x86 and ARM of 64 bits; else zlib."""
    try:
        from isal import isal_zlib
    except ModuleNotFoundError:
        return zlib
    return isal_zlib


class _Gzip:
    """The members of a gzip file, one after the other (RFC 1952)."""

    def __init__(self, blob: Compressed) -> None:
        self._blob = blob
        self._zlib = _zlib()
        self._given = b""
        self._start(b"")

    def read(self, size: int = PIECE) -> bytes:
        """Return the next bytes, at most ``size`` of them; none at the end."""
        while True:
            if self._member.eof:
                rest = self._member.unused_data or self._blob.read()
                if not rest:
                    return b""
                self._start(rest)
            data = self._given or self._member.unconsumed_tail or self._blob.read()
            self._given = b""
            try:
                inflated: bytes = self._member.decompress(data, size)
            except (self._zlib.error, zlib.error) as error:
                raise FormatError.at(self._blob.where, f"damaged gzip data: {error}", hint=AGAIN) from None
            if inflated:
                return inflated
            if not data and not self._member.eof:
                raise FormatError.at(self._blob.where, "the gzip data is cut off", hint=AGAIN)

    def _start(self, data: bytes) -> None:
        """Begin a member, of which this is the beginning."""
        while len(data) <= _FLAGS and (more := self._blob.read()):
            data += more
        flags = int.from_bytes(data[_FLAGS : _FLAGS + 1], "big") & ~1
        # ISA-L loses its place in a longer header, or one with a checksum, that does not come in one piece.
        self._member = (self._zlib if flags in _ONE_FIELD else zlib).decompressobj(_GZIP)
        self._given = data


class _Zstd:
    """The frames of a zstd file, one after the other (RFC 8878)."""

    def __init__(self, blob: Compressed) -> None:
        import zstandard

        self._blob = blob
        self._frames = _Frames(blob)
        self._error = zstandard.ZstdError
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._reader = decompressor.stream_reader(
            self._frames,  # type: ignore[arg-type]  # of a file it needs only read
            read_size=PIECE,
            read_across_frames=True,
            closefd=False,
        )

    def read(self, size: int = PIECE) -> bytes:
        """Return the next bytes, at most ``size`` of them; none at the end."""
        try:
            data = self._reader.read(size)
        except self._error as error:
            if "too much memory" in str(error):
                message = f"the zstd data can be read with more than {_MAX_WINDOW >> 20} MiB of memory only"
                raise TooLargeError.at(self._blob.where, message, hint=f"its window is too large; {_ANEW}") from None
            raise FormatError.at(self._blob.where, f"damaged zstd data: {error}", hint=AGAIN) from None
        if not data and not self._frames.is_complete:  # zstd itself does not mind
            raise FormatError.at(self._blob.where, "the zstd data is cut off", hint=AGAIN)
        return data


class _Frames:
    """A blob of zstd, and where its frames begin and end: headers are looked at, contents passed over.

    ======================  =====================================================================================
    frame                   magic FD2FB528, descriptor, its fields, blocks, 4 bytes of checksum if the descriptor says
    skippable frame         magic 184D2A50 to 184D2A5F, size (4), so many bytes
    block                   3 bytes: last (1 bit), type (2 bits), size (21 bits); that many bytes, or 1 of type 1
    ======================  =====================================================================================
    """

    def __init__(self, blob: Compressed) -> None:
        self._blob = blob
        self._parser = self._parse()
        self._header_size = next(self._parser)
        self._header = bytearray()
        """What has come of the next magic, descriptor, size or head of a block."""
        self._skip = 0
        """Bytes to pass over before it."""
        self._is_between = False

    @property
    def is_complete(self) -> bool:
        """Whether there was a frame at all, and no other has begun."""
        return self._is_between and not self._header and not self._skip

    def read(self, size: int) -> bytes:
        """Return the next bytes of the blob; raise FormatError where a frame should begin and does not."""
        data = self._blob.read(size)
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
            else:
                step = min(self._header_size - len(self._header), len(data) - position)
                self._header += data[position : position + step]
                if len(self._header) == self._header_size:
                    number = int.from_bytes(self._header, "little")
                    self._header.clear()
                    self._header_size = self._parser.send(number)
            position += step
        return data

    def _parse(self) -> Generator[int, int, None]:
        """Yield the number of bytes of the next header and get its value; what is to be passed over goes to _skip."""
        while True:
            magic = yield 4
            self._is_between = False
            if magic >> 4 == _SKIPPABLE >> 4:
                self._skip = yield 4
            elif magic == _MAGIC:
                descriptor = yield 1
                is_single = descriptor >> 5 & 1
                fields = (0, 1, 2, 4)[descriptor & 3] + (is_single, 2, 4, 8)[descriptor >> 6]
                self._skip = fields if is_single else fields + 1
                is_last = 0
                while not is_last:
                    header = yield 3
                    is_last = header & 1
                    self._skip = 1 if header >> 1 & 3 == 1 else header >> 3
                self._skip += 4 * (descriptor >> 2 & 1)
            else:
                where = self._blob.where
                raise FormatError.at(where, "something else follows the zstd data", hint=AGAIN)
            self._is_between = True
