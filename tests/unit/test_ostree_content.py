"""From a .filez to a staged file: whole, in pieces, and damaged in every way."""

from __future__ import annotations

import os
import random
import resource
import struct
import tracemalloc
import zlib
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest

from composefs_ext.errors import CorruptError, ExtError, FormatError, NoSpaceError
from composefs_ext.packs import Packs
from composefs_ext.protocol import PACKS
from composefs_ext.staging import Staging
from composefs_ostree.fetching.blame import STAGING
from composefs_ostree.fetching.content import FileFetch
from composefs_ostree.fetching.local import ArchiveReader
from composefs_ostree.fetching.stage import SmallContents, check_space, stage_bytes
from composefs_ostree.fetching.traffic import Traffic
from composefs_ostree.fetching.transport import Fetch, is_page
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.fileheader import checksum_header, head_size

if TYPE_CHECKING:
    from composefs_ostree.fetching.stage import Row

LIMIT = 64
UNPACKED = Packs(Staging("."), ())


def swap(number: int, size: int) -> int:
    return int.from_bytes(number.to_bytes(size, "big"), "little")


def filez(
    content: bytes, *, size: int | None = None, mode: int = 0o100644, target: str = "", stream: bytes | None = None
) -> tuple[bytes, bytes]:
    """Return a file's id and its .filez, whose header may lie about the size and whose deflate stream may be given."""
    numbers = [swap(number, 4) for number in (0, 0, mode, 0)]
    told = swap(len(content) if size is None else size, 8)
    z = gvariant.encode("(tuuuusa(ayay))", (told, *numbers, target, [(b"user.k\0", b"v")]))
    head = struct.pack(">II", len(z), 0) + z
    if stream is None:
        stream = b"" if target else deflate(content)
    return sha256(checksum_header(head) + content).digest(), head + stream


def deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    return packer.compress(content) + packer.flush()


def fetch(file_id: bytes, data: bytes, staged: Path, piece: int, packs: Packs = UNPACKED) -> Row:
    """Feed a fetch in pieces and finish it."""
    one = FileFetch(file_id, str(staged), SmallContents(LIMIT, packs))
    one.begin()
    try:
        for start in range(0, len(data), piece):
            if one.take(data[start : start + piece]) is not None:
                break
        return one.finish()
    except ExtError:
        one.discard()
        assert not staged.exists(), "a damaged file stays in staging"
        raise


@pytest.mark.parametrize("size", [0, 1, 64, 65, 4096, 262144, 1 << 20, (1 << 20) + 1, 3_000_000])
@pytest.mark.parametrize("piece", [1 << 30, 16384, 99_991])
def test_content_arrives_whatever_its_size_and_pieces(tmp_path: Path, size: int, piece: int) -> None:
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    file_id, data = filez(content)
    head_end = len(data) - len(deflate(content))
    row_id, kept, row_size, staged = fetch(file_id, data, tmp_path / "f", piece)
    assert (row_id, row_size) == (file_id, size)
    if size <= LIMIT:
        assert (kept, staged) == (data[:head_end] + content, None)
    else:
        assert (kept, staged) == (data[:head_end], str(tmp_path / "f"))
        assert (tmp_path / "f").read_bytes() == content


@pytest.mark.parametrize("piece", [1 << 30, 99])
def test_small_content_goes_into_a_pack(tmp_path: Path, piece: int) -> None:
    packs = Packs(Staging(str(tmp_path)), [PACKS])
    contents = [b"%d" % number * 100 for number in range(3)] + [bytes(packs.largest)]
    files = [filez(content) for content in contents]
    places = [fetch(*file, tmp_path / "f", piece, packs)[3] for file in files]
    with pytest.raises(CorruptError):
        fetch(bytes(32), files[0][1], tmp_path / "f", piece, packs)
    packs.flush()
    for place, content in zip(places, contents, strict=True):
        assert isinstance(place, tuple)
        name, offset = place
        assert (tmp_path / name).read_bytes()[offset : offset + len(content)] == content
    content = bytes(packs.largest + 1)
    assert fetch(*filez(content), tmp_path / "f", piece, packs)[3] == str(tmp_path / "f")


@pytest.mark.parametrize("piece", [1, 3, 10**6])
def test_symlinks_have_no_content(tmp_path: Path, piece: int) -> None:
    file_id, data = filez(b"", mode=0o120777, target="../x")
    assert fetch(file_id, data, tmp_path / "f", piece) == (file_id, data, 0, None)
    with pytest.raises(CorruptError, match="behind its end"):
        fetch(file_id, data + b"\0", tmp_path / "f", piece)


def with_large_header(content: bytes) -> tuple[bytes, bytes, bytes]:
    """Return id, head and .filez of a file whose attributes are large."""
    numbers = [swap(number, 4) for number in (0, 0, 0o100644, 0)]
    xattrs = [(b"user.%02d\0" % number, b"x" * 60_000) for number in range(10)]
    z = gvariant.encode("(tuuuusa(ayay))", (swap(len(content), 8), *numbers, "", xattrs))
    head = struct.pack(">II", len(z), 0) + z
    return sha256(checksum_header(head) + content).digest(), head, head + deflate(content)


def test_a_large_header_before_a_small_content(tmp_path: Path) -> None:
    file_id, head, data = with_large_header(b"abc")
    assert fetch(file_id, data, tmp_path / "f", 16384) == (file_id, head + b"abc", 3, None)


def test_a_large_header_in_small_pieces_is_joined_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server keeps a processor busy for minutes with a megabyte."""
    looks = 0

    def counted(start: bytes) -> int:
        nonlocal looks
        looks += 1
        assert looks <= 3
        return head_size(start)

    monkeypatch.setattr("composefs_ostree.fetching.content.head_size", counted)
    file_id, head, data = with_large_header(b"abc")
    assert fetch(file_id, data, tmp_path / "f", 1) == (file_id, head + b"abc", 3, None)
    looks = 0
    with pytest.raises(CorruptError, match="inside of its header"):
        fetch(file_id, head[:-1], tmp_path / "f", 1)


@pytest.mark.parametrize(
    "one", [FileFetch(bytes(32), "f", SmallContents(LIMIT, UNPACKED)), Fetch("x")], ids=["file", "other"]
)
def test_small_pieces_take_little_more_memory_than_one(one: Fetch) -> None:
    data = random.Random(1).randbytes(200 << 10)
    one.begin()
    tracemalloc.start()
    try:
        for start in range(0, len(data), 2):
            assert one.take(data[start : start + 2]) is None
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2 * len(data)
    one.begin()
    for piece in (data[:3], data[3:5], data[5:4000], data[4000:4001], data[4001:4002], data[4002:]):
        assert one.take(piece) is None
    assert one.data == data


SMALL = b"some content, " * 20
LARGE = random.Random(1).randbytes(2 << 20)  # goes through in pieces, deflated too


@pytest.mark.parametrize("piece", [1 << 30, 16384])
@pytest.mark.parametrize("content", [SMALL, LARGE])
class TestDamage:
    """Whatever is wrong with a file, it is refused and nothing of it stays."""

    def refuse(self, tmp_path: Path, file_id: bytes, data: bytes, piece: int, match: str) -> None:
        with pytest.raises((CorruptError, FormatError), match=match):
            fetch(file_id, data, tmp_path / "f", piece)

    def test_it_ends_early(self, tmp_path: Path, content: bytes, piece: int) -> None:
        file_id, data = filez(content)
        for length in (0, 3, 8, 20, 60, len(data) // 2, len(data) - 1):
            self.refuse(tmp_path, file_id, data[:length], piece, "ends after")

    def test_something_follows(self, tmp_path: Path, content: bytes, piece: int) -> None:
        file_id, data = filez(content)
        self.refuse(tmp_path, file_id, data + b"x", piece, "behind its end")
        self.refuse(tmp_path, file_id, data + b"x", len(data), "behind its end")
        self.refuse(tmp_path, file_id, data + bytes(100_000), piece, "behind its end|compressed bytes")

    def test_a_bit_is_wrong(self, tmp_path: Path, content: bytes, piece: int) -> None:
        file_id, data = filez(content)
        for position in (21, 26, len(data) - 5):  # in uid, in mode, in the content
            changed = data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :]
            self.refuse(tmp_path, file_id, changed, piece, "checksum|header|deflate|content")

    def test_it_is_another_file(self, tmp_path: Path, content: bytes, piece: int) -> None:
        self.refuse(tmp_path, bytes(32), filez(content)[1], piece, "checksum")

    def test_it_is_longer_than_it_says(self, tmp_path: Path, content: bytes, piece: int) -> None:
        file_id, data = filez(content, size=len(content) - 1)
        self.refuse(tmp_path, file_id, data, piece, "longer than")

    def test_it_is_shorter_than_it_says(self, tmp_path: Path, content: bytes, piece: int) -> None:
        file_id, data = filez(content, size=len(content) + 1)
        self.refuse(tmp_path, file_id, data, piece, "ends after")

    def test_it_is_no_deflate_stream(self, tmp_path: Path, content: bytes, piece: int) -> None:
        file_id, data = filez(content, stream=b"\xff" * 1000)
        self.refuse(tmp_path, file_id, data, piece, "deflate")


def test_a_bomb_stops_at_the_size_it_admits(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(40)) + packer.flush()
    file_id, data = filez(b"", size=100, stream=bomb)
    with pytest.raises(CorruptError, match="longer than the 100 bytes"):
        fetch(file_id, data, tmp_path / "f", 1 << 30)


@pytest.mark.parametrize("told", [100, 40 << 20], ids=["a bomb", "what it says"])
def test_few_bytes_that_become_many_take_no_memory(tmp_path: Path, told: int) -> None:
    content = bytes(40 << 20)
    file_id, data = filez(content, size=told)
    del content
    tracemalloc.start()
    with pytest.raises(CorruptError) if told == 100 else nullcontext():
        fetch(file_id, data, tmp_path / "f", 1 << 30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20


def test_endless_empty_blocks_end(tmp_path: Path) -> None:
    empty_block = b"\0\0\0\xff\xff"
    file_id, data = filez(b"", size=100, stream=empty_block * 100_000)
    with pytest.raises(CorruptError, match="compressed bytes"):
        fetch(file_id, data, tmp_path / "f", 16384)


def test_a_repeated_transfer_starts_from_nothing(tmp_path: Path) -> None:
    file_id, data = filez(LARGE)
    one = FileFetch(file_id, str(tmp_path / "f"), SmallContents(LIMIT, UNPACKED))
    one.begin()
    assert one.take(data[:-10]) is None
    assert (tmp_path / "f").exists()
    one.begin()
    assert one.take(data) is None
    assert one.finish()[3] == str(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == LARGE


def test_what_is_wrong_ends_the_transfer_and_is_raised_behind_it(tmp_path: Path) -> None:
    """Who calls ``take`` is a library in C, which can do nothing with an exception."""
    one = FileFetch(bytes(32), str(tmp_path / "f"), SmallContents(LIMIT, UNPACKED))
    one.begin()
    assert one.take(bytes(range(256)) * 2000) is not None
    with pytest.raises(FormatError):
        one.finish()


def test_a_disk_that_is_full_in_the_middle_is_not_blamed_on_the_source(tmp_path: Path) -> None:
    file_id, data = filez(LARGE)
    one = FileFetch(file_id, str(tmp_path / "f"), SmallContents(LIMIT, UNPACKED))
    one.begin()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        assert one.take(data) is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert one.error is not None
    assert one.error.subject == STAGING
    one.discard()
    assert os.listdir(tmp_path) == []


def test_an_object_in_a_directory_is_no_symlink(tmp_path: Path) -> None:
    file_id, data = filez(b"content")
    reader = ArchiveReader(str(tmp_path), SmallContents(LIMIT, UNPACKED))
    path = Path(reader.path(file_id))
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    assert reader.read(file_id, str(tmp_path / "staged")) is not None
    path.rename(tmp_path / "good")
    path.symlink_to(tmp_path / "good")
    with pytest.raises((CorruptError, OSError)):
        reader.read(file_id, str(tmp_path / "staged"))


@pytest.mark.parametrize(("blocks", "size", "error"), [(0, 8193, None), (5, 8193, NoSpaceError), (5, 8192, None)])
def test_a_file_that_fits_is_as_large_as_what_is_free_unless_no_blocks_are_counted(
    monkeypatch: pytest.MonkeyPatch, blocks: int, size: int, error: type[ExtError] | None
) -> None:
    free = Mock(f_bfree=2, f_bavail=1, f_frsize=4096, f_bsize=1 << 20, f_blocks=blocks)
    monkeypatch.setattr(os, "fstatvfs", lambda _: free)
    with pytest.raises(error, match="8193 bytes, and 8192 are free") if error is not None else nullcontext():
        check_space(0, size)


def test_content_of_the_limit_goes_into_the_row() -> None:
    small = SmallContents(4, UNPACKED)
    assert small.row(b"id", b"head", b"four") == (b"id", b"headfour", 4, None)
    assert small.largest == 4


def test_nothing_is_staged_over_what_is_there(tmp_path: Path) -> None:
    stage_bytes(b"first", f"{tmp_path}/staged")
    with pytest.raises(FileExistsError):
        stage_bytes(b"no", f"{tmp_path}/staged")
    assert (tmp_path / "staged").read_bytes() == b"first"


def test_bytes_that_were_told_are_not_told_again() -> None:
    traffic = Traffic()
    traffic.received = 5
    traffic.tell("wait", 1.0)
    assert [traffic.take(), traffic.take()] == [(5, [("wait", 1.0)]), (0, [])]


def test_what_only_speaks_of_a_page_far_behind_its_beginning_is_none() -> None:
    assert is_page(b" <!-- -->" + b" " * 500 + b"<HTML>")
    assert not is_page(b"<" + b" " * 1100 + b"<html>")


def test_what_cannot_fit_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As much is written as tells a damaged header from a file that is so large."""
    monkeypatch.setattr("composefs_ostree.fetching.content._TRIED", 1 << 20)
    for made, error in ((1 << 20, CorruptError), (2 << 20, NoSpaceError)):
        file_id, data = filez(b"", size=1 << 60, stream=deflate(bytes(made)))
        with pytest.raises(error):
            fetch(file_id, data, tmp_path / "f", 1 << 30)
