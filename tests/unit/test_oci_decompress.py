"""Layers decompressed: many members and frames, cut off, damaged, followed by something else, inflating without end."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard

from composefs_ext.errors import CorruptError, FormatError, TooLargeError, UnsupportedError
from composefs_oci.formats.descriptors import Descriptor
from composefs_oci.formats.digest import digest_of
from composefs_oci.layers.decompress import open_tar
from composefs_oci.sources.source import Blob

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = f"{TAR}+gzip"
ZSTD = f"{TAR}+zstd"
TEXT = bytes(range(256)) * 5000


@pytest.fixture(autouse=True, params=["isal", "zlib"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What inflates gzip; without the first, as most machines are, it is the second."""
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    return str(request.param)


def member(data: bytes, flags: int) -> bytes:
    """A member of a gzip file with the fields that the flags tell (RFC 1952)."""
    header = b"\x1f\x8b\x08" + bytes([flags]) + bytes(6)
    for flag, field in ((4, b"\x05\0extra"), (8, b"name\0"), (16, b"comment\0")):
        header += field if flags & flag else b""
    if flags & 2:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + gzip.compress(data)[10:]


def zstd(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)


def skippable(data: bytes, kind: int = 0) -> bytes:
    return (0x184D2A50 + kind).to_bytes(4, "little") + len(data).to_bytes(4, "little") + data


def blob(data: bytes, media_type: str, piece: int = 1 << 20) -> Blob:
    class Reader(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, piece))

    return Blob(Reader(data), Descriptor(media_type, digest_of(data), len(data)), "the blob")


def expand(data: bytes, media_type: str, piece: int = 1 << 20, size: int = 1000) -> bytes:
    reader = open_tar(blob(data, media_type, piece))
    pieces = list(iter(lambda: reader.read(size), b""))
    assert max(map(len, pieces), default=0) <= size
    assert reader.read(size) == b""
    return b"".join(pieces)


def test_a_member_may_have_any_header_and_come_in_any_two_pieces() -> None:
    first = gzip.compress(TEXT[:1000], compresslevel=0)
    for flags in range(32):
        data = first + member(b"second", flags)
        assert gzip.decompress(data) == TEXT[:1000] + b"second"
        for end in range(len(first), len(first) + 40):
            assert expand(data, GZIP, piece=end) == TEXT[:1000] + b"second", (flags, end - len(first))


@pytest.mark.parametrize("piece", [1, 3, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        (TAR, TEXT),
        (GZIP, gzip.compress(TEXT)),
        (GZIP, gzip.compress(TEXT[:700_000]) + gzip.compress(b"") + gzip.compress(TEXT[700_000:])),
        (ZSTD, zstd(TEXT)),
        (ZSTD, zstd(TEXT, write_content_size=False, write_checksum=True)),
        (ZSTD, zstd(TEXT[:300_000]) + zstd(TEXT[300_000:], write_checksum=True)),
        (ZSTD, skippable(b"x" * 300, 15) + zstd(TEXT) + skippable(b"") + zstd(b"") + skippable(b"toc", 3)),
        (ZSTD, zstandard.ZstdCompressor().stream_reader(io.BytesIO(TEXT)).read()),
    ],
    ids=["tar", "gzip", "members", "zstd", "checksum", "frames", "skippable", "stream"],
)
def test_all_members_and_frames_are_read(media_type: str, data: bytes, piece: int) -> None:
    if piece < 1000:
        data, expected = (TEXT[:5000], TEXT[:5000]) if media_type == TAR else (data, TEXT)
    else:
        expected = TEXT
    assert expand(data, media_type, piece) == expected


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_where_it_is_cut_off_is_noticed(media_type: str) -> None:
    whole = gzip.compress(TEXT[:3000]) if media_type == GZIP else zstd(TEXT[:3000]) + skippable(b"12345678")
    ends = {len(zstd(TEXT[:3000]))} if media_type == ZSTD else set()
    for length in range(4, len(whole)):  # less looks like neither
        if length in ends:
            assert expand(whole[:length], media_type) == TEXT[:3000]
            continue
        with pytest.raises(FormatError, match="cut off"):
            expand(whole[:length], media_type)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 512, b"PK\3\4", b"more" * 1000])
@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_other_data_after_it_is_refused(media_type: str, tail: bytes) -> None:
    data = gzip.compress(TEXT) if media_type == GZIP else zstd(TEXT)
    with pytest.raises(FormatError, match="the blob: "):
        expand(data + tail, media_type)


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_damage_is_noticed(media_type: str) -> None:
    data = bytearray(gzip.compress(TEXT) if media_type == GZIP else zstd(TEXT, write_checksum=True))
    data[-3] ^= 1  # of the checksum
    with pytest.raises(FormatError, match="damaged"):
        expand(bytes(data), media_type)


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD])
@pytest.mark.parametrize("piece", [1, 3, 1 << 20])
def test_what_the_data_looks_like_counts_and_not_what_the_type_says(media_type: str, piece: int) -> None:
    text = TEXT[:3000]
    for data in (text, gzip.compress(text), zstd(text), skippable(b"x") + zstd(text)):
        assert expand(data, media_type, piece) == text
    for short in (b"", b"\x1f\x8b", b"no compressed data at all"):
        assert expand(short, media_type, piece) == short


@pytest.mark.parametrize("piece", [1, 511, 1 << 20])
@pytest.mark.parametrize("name", [b"BZhistory", b"P*M\x18x", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"])
def test_an_archive_is_one_whatever_its_first_name_begins_with(name: bytes, piece: int) -> None:
    """That of tar's seventh edition has no magic of its own."""
    for magic in (b"ustar\00000", b"ustar  \0", b""):
        header = (name.ljust(148, b"\0") + b" " * 8 + b"0".ljust(101, b"\0") + magic).ljust(512, b"\0")
        data = header[:148] + b"%06o\0 " % sum(header) + header[156:] + bytes(1024)
        assert expand(data, TAR, piece) == data
        with pytest.raises((FormatError, UnsupportedError)):
            expand(data.replace(b"\0 ", b"7 ", 1), TAR, piece)


@pytest.mark.parametrize(("compress", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_what_else_layers_are_compressed_with_is_named(compress: Callable[[bytes], bytes], name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"^the blob: the layer is compressed with {name}$"):
        expand(compress(TEXT), GZIP)


@pytest.mark.parametrize("media_type", [TAR, GZIP, ZSTD])
@pytest.mark.parametrize("change", ["digest", "short", "long"])
def test_the_blob_itself_is_checked_to_its_end(media_type: str, change: str) -> None:
    data = {TAR: TEXT, GZIP: gzip.compress(TEXT), ZSTD: zstd(TEXT) + skippable(b"unused" * 20)}[media_type]
    digest = digest_of(b"" if change == "digest" else data)
    size = len(data) + {"digest": 0, "short": 1, "long": -1}[change]
    reader = open_tar(Blob(io.BytesIO(data), Descriptor(media_type, digest, size), "the blob"))
    with pytest.raises((CorruptError, FormatError)) as caught:
        list(iter(lambda: reader.read(1000), b""))
    if change != "long":  # a compressed blob is cut off then
        assert isinstance(caught.value, CorruptError)


@pytest.mark.parametrize("good", [0, 1], ids=["inside", "at the end"])
def test_a_blob_that_the_disk_does_not_give_is_named(good: int) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == good:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    reader = Blob(Failing(b"x"), Descriptor(TAR, digest_of(b"x"), 1), "/the/blob")
    with pytest.raises(OSError, match="Input/output error: '/the/blob'"):
        reader.read_all()


def bomb(media_type: str, size: int) -> bytes:
    if media_type == GZIP:
        compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
        return b"".join(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20)) + compressor.flush()
    # Blocks that say "so many times this byte": four bytes each for 128 KiB.
    block = (128 << 10 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (1 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"
    return bytes.fromhex("28b52ffd 00 58") + block * (size >> 17) + last


SCRIPT = """
import io, resource, sys
if sys.argv[4] == "zlib":
    sys.modules["isal"] = None
from composefs_oci.layers.decompress import open_tar
from composefs_oci.formats.descriptors import Descriptor
from composefs_oci.formats.digest import digest_of
from composefs_oci.sources.source import Blob
media_type, path, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = open(path, "rb").read()
reader = open_tar(Blob(io.BytesIO(data), Descriptor(media_type, digest_of(data), len(data)), "bomb"))
size = len(reader.read(1000))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
while size < limit:
    size += len(reader.read(65536))
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10, "memory grows with the content"
print(size)
"""


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_memory_does_not_follow_what_it_inflates_to(media_type: str, library: str, tmp_path: Any) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(bomb(media_type, 1 << 30 if media_type == ZSTD else 256 << 20))
    assert path.stat().st_size < 1 << 20

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, media_type, path, str(200 << 20), library],
        preexec_fn=limit,
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) >= 200 << 20


def test_a_window_beyond_the_limit_is_refused() -> None:
    frame = bytes.fromhex("28b52ffd 00 a8") + (1 << 3 | 1 << 1 | 1).to_bytes(3, "little") + b"\0"  # 2 GiB
    with pytest.raises(TooLargeError, match="with more than 128 MiB of memory only"):
        expand(frame, ZSTD)
