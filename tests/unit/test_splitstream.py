"""The reader of splitstreams checks every range, count, size, index and sign; memory follows nothing it reads."""

import os
import struct
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from composefs import splitstream
from composefs.digest import SHA256, SHA512
from composefs.errors import FormatError, InputOutputError, TooLargeError
from composefs.protocol.limits import Limits
from composefs.splitstream import Parts, Reader
from composefs.splitstream.layout import MAX_REFERENCES, PIECE
from support.splitstreams import stream_of

ID_A, ID_B = "aa" * 32, "bb" * 32
EMPTY_FRAME = bytes.fromhex("28b52ffd2000010000")


def frame(data: bytes, **options: bool) -> bytes:
    compressor = zstandard.ZstdCompressor(**options).compressobj()
    return compressor.compress(data) + compressor.flush()


def chunk(*parts: int | bytes) -> bytes:
    return b"".join(struct.pack("<q", part) if isinstance(part, int) else part for part in parts)


class Made:
    """A splitstream put together by hand, any part of it wrong."""

    def __init__(self) -> None:
        self.magic = b"SplitStream"
        self.head = (0, 0, 1, 12)
        self.stream_refs = bytes.fromhex(ID_A)
        self.object_refs = bytes.fromhex(ID_B)
        self.stream = frame(chunk(-3, b"abc", 0))
        self.names = frame(b"0:name\0")
        self.size = 3 + 5
        self.ranges: dict[int, int] = {}  # index in info → value
        self.info: tuple[int, int] | None = None
        self.tail = b""

    def __bytes__(self) -> bytes:
        start = 112
        bounds = []
        for part in (self.stream_refs, self.object_refs, self.stream, self.names):
            bounds += [start, start + len(part)]
            start += len(part)
        for index, value in self.ranges.items():
            bounds[index] = value
        info = self.info or (32, 112)
        head = struct.pack("<11sBHBBQQ", self.magic, *self.head, *info)
        body = self.stream_refs + self.object_refs + self.stream + self.names
        return head + struct.pack("<10Q", *bounds, 7, self.size) + body + self.tail


def read(made: Made) -> tuple[list[tuple[int, bytes]], list[tuple[str, str]], list[str]]:
    with Reader(bytes(made), SHA256) as reader:
        return list(reader.chunks()), reader.named_refs, list(reader.object_refs())


def test_a_stream_made_by_hand() -> None:
    assert read(Made()) == ([(-3, b"abc"), (0, b"")], [("name", ID_A)], [ID_B])


def test_what_follows_and_a_longer_info_are_ignored() -> None:
    made = Made()
    made.tail = b"later"
    made.info = (32, 112 + 32)
    assert read(made)[1] == [("name", ID_A)]


def test_a_frame_may_have_a_content_size_and_a_checksum() -> None:
    made = Made()
    made.stream = zstandard.ZstdCompressor(write_checksum=True, write_content_size=True).compress(chunk(-3, b"abc", 0))
    assert read(made)[0] == [(-3, b"abc"), (0, b"")]


def spoilt(**attributes: object) -> Made:
    made = Made()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (spoilt(magic=b"SplitSteam?"), "not a splitstream"),
        (spoilt(head=(1, 0, 1, 12)), "version 1"),
        (spoilt(head=(0, 4, 1, 12)), "flags 4"),
        (spoilt(head=(0, 0, 2, 12)), "hash algorithm 2"),
        (spoilt(head=(0, 0, 1, 16)), r"block size 2\^16"),
        (spoilt(info=(32, 111)), "info is too short"),
        (spoilt(info=(112, 32)), "info is at"),
        (spoilt(info=(32, 1 << 63)), "info is at"),
        (spoilt(ranges={1: 1 << 40}), "stream_refs is at"),
        (spoilt(ranges={2: 200, 3: 190}), "object_refs is at"),
        (spoilt(ranges={5: (1 << 64) - 1}), "stream is at"),
        (spoilt(ranges={6: 1 << 20, 7: 1 << 20}), "named_refs is at"),
        (spoilt(stream_refs=bytes(31)), "no whole number"),
        (spoilt(object_refs=bytes(33)), "no whole number"),
        (spoilt(size=1 << 63), "not plausible"),
        (spoilt(size=2), "longer than its size"),
        (spoilt(stream=b""), "no zstd frame"),
        (spoilt(stream=b"\x28\xb5\x2f\xfd"), "no zstd frame"),
        (spoilt(stream=b"\x28\xb5\x2f\xfdxx"), "zstd"),
        (spoilt(stream=EMPTY_FRAME[:6]), "cut off"),
        (spoilt(stream=frame(chunk(0))[:-1]), "does not end where its range does"),
        (spoilt(stream=frame(chunk(0)) + b"x"), "does not end where its range does"),
        (spoilt(stream=frame(chunk(0)) + frame(chunk(0))), "does not end where its range does"),
        (spoilt(stream=b"\x50\x2a\x4d\x18" + bytes(8)), "no zstd frame"),
        (spoilt(stream=EMPTY_FRAME[:4] + b"\x21\0\0" + EMPTY_FRAME[6:]), "needs a dictionary"),
        (spoilt(stream=EMPTY_FRAME[:6] + bytes(3) + EMPTY_FRAME[6:]), "empty block before its last"),
        (spoilt(stream=frame(b"123")), "inside a number"),
        (spoilt(stream=frame(chunk(1))), "object reference 1 of 1"),
        (spoilt(stream=frame(chunk(-3, b"ab"))), "inside an inline chunk"),
        (spoilt(stream=frame(chunk(-(1 << 63), b"ab"))), "longer than its size"),
        (spoilt(stream=frame(chunk(-1, b"a", -2, b"bc"))), "two inline chunks"),
        (spoilt(stream=frame(chunk(-3, b"abc"))), "has 3 bytes, its size says 8"),
        (spoilt(stream=frame(b"")), "has 0 bytes"),
        (spoilt(names=b""), "no zstd frame"),
        (spoilt(names=frame(b"0:name")), "has no end"),
        (spoilt(names=frame(b"name\0")), "no valid index"),
        (spoilt(names=frame(b"0\0")), "is empty"),
        (spoilt(names=frame(b"1:name\0")), "reference '1:name' has no valid index"),
        (spoilt(names=frame(b"-1:name\0")), "no valid index"),
        (spoilt(names=frame(b"99999999999999999999:name\0")), "no valid index"),
        (spoilt(names=frame(b"9" * 5000 + b":name\0")), "no valid index"),  # int() refuses so many digits
        (spoilt(names=frame("²:name\0".encode())), "no valid index"),
        (spoilt(names=frame(b"0:\0")), "empty or comes twice"),
        (spoilt(names=frame(b"0:a\x000:a\0")), "empty or comes twice"),
        (spoilt(names=frame(b"0:\xff\0")), r"reference '0:\\xff' is not UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(made: Made, message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read(made)
    assert caught.value.offset is not None


def test_too_many_references(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reader", "writer"):
        monkeypatch.setattr(f"composefs.splitstream.{module}.MAX_REFERENCES", 1)
    with pytest.raises(FormatError, match="more than 1 object references"):
        read(spoilt(object_refs=bytes(64)))
    with pytest.raises(TooLargeError):
        stream_of(SHA256, content_type=1, object_refs=[ID_A, ID_B])


@pytest.mark.parametrize(
    ("limit", "most", "chunks", "more"),
    [
        ("MAX_CHUNKS", 3, [-1, -1, 0, -1, -1], [-1, 0, -1, 0]),
        ("MAX_CHUNKS", 3, [0, 0, 0], [0, 0, 0, -1]),
        ("MAX_INLINE", 4, [-3, 0, -1], [-3, 0, -2]),
    ],
    ids=["joined chunks", "chunks", "inline bytes"],
)
def test_what_is_written_is_read(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int, chunks: list[int], more: list[int]
) -> None:
    """A stream of more than the reader takes is refused before it is stored, and not for ever after."""

    def write(numbers: list[int]) -> bytes:
        inline = bytes(-sum(number for number in numbers if number < 0))
        return stream_of(SHA256, content_type=1, inline=inline, chunks=numbers, object_refs=[ID_A], sizes=[1])

    too_much = write(more)
    for module in ("reader", "writer"):
        monkeypatch.setattr(f"composefs.splitstream.{module}.{limit}", most)
    with Reader(write(chunks), SHA256) as reader:
        assert sum(len(data) or 1 for _, data in reader.chunks()) == reader.size
    with pytest.raises(TooLargeError, match=f"at most {most}"):
        write(more)
    with Reader(too_much, SHA256) as reader, pytest.raises(FormatError, match=f"more than {most}"):
        list(reader.chunks())


@pytest.mark.parametrize(
    ("limit", "most", "message"),
    [("MAX_NAMED_REFS", 2, "named references"), ("MAX_NAMED_REFS_SIZE", len(b"0:a\x001:b\0"), "too long")],
)
def test_the_names_that_are_written_are_read(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int, message: str
) -> None:
    """A small file could hold as many names as fill the memory."""

    def write(names: str) -> bytes:
        ids = (ID_A, ID_B, "cc" * 32)
        return stream_of(SHA256, content_type=1, named_refs=list(zip(names, ids, strict=False)))

    too_much = write("abc")
    for module in ("reader", "writer"):
        monkeypatch.setattr(f"composefs.splitstream.{module}.{limit}", most)
    with Reader(write("ab"), SHA256) as reader:
        assert reader.named_refs == [("a", ID_A), ("b", ID_B)]
    with pytest.raises(TooLargeError, match=message):
        write("abc")
    with Reader(too_much, SHA256) as reader, pytest.raises(FormatError, match=message):
        assert reader.named_refs


def test_the_most_chunks() -> None:
    with pytest.raises(TooLargeError, match="8000001 chunks"):
        stream_of(SHA256, content_type=1, chunks=[0] * 8_000_002, object_refs=[ID_A], sizes=[1])


@pytest.mark.parametrize("size", range(0, 112, 13))
def test_a_stream_cut_short(size: int) -> None:
    with pytest.raises(FormatError):
        Reader(bytes(Made())[:size], SHA256)


def test_a_zstd_bomb_of_names_is_stopped() -> None:
    made = spoilt(names=frame(b"0:" + bytes([65]) * (80 << 20) + b"\0"))
    with pytest.raises(FormatError, match="too long"):
        read(made)


def test_a_window_larger_than_agreed_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=24, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    made = spoilt(stream=compressor.compress(chunk(-3, b"abc", 0)) + compressor.flush())
    with pytest.raises(FormatError, match="zstd"):
        read(made)


def test_a_lack_of_memory_is_not_called_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    class Poor:
        def __init__(self, **_options: object) -> None:
            pass

        def stream_reader(self, _source: object) -> "Poor":
            return self

        def readinto(self, _buffer: object) -> int:
            raise zstandard.ZstdError("zstd decompress error: Allocation error : not enough memory")

    monkeypatch.setattr(zstandard, "ZstdDecompressor", Poor)
    with pytest.raises(MemoryError):
        read(Made())


def test_a_long_inline_chunk_comes_in_pieces_and_memory_stays_small(tmp_path: Path) -> None:
    size = 64 << 20
    path = tmp_path / "stream"
    with path.open("wb") as out, (tmp_path / "zeros").open("w+b") as zeros:
        zeros.truncate(size)
        assert splitstream.write(out, SHA512, Parts(1, zeros, [-size]), []) == size
    tracemalloc.start()
    with Reader(os.open(path, os.O_RDONLY), SHA512) as reader:
        total = 0
        for number, data in reader.chunks():
            assert len(data) == -number <= PIECE
            total += len(data)
    assert total == size
    assert tracemalloc.get_traced_memory()[1] < 16 * PIECE
    tracemalloc.stop()


def test_the_descriptor_is_closed_when_the_header_is_bad(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.write_bytes(b"nothing")
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(FormatError):
        Reader(fd, SHA256)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_file_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(bytes(Made()))
    with Reader(os.open(path, os.O_RDONLY), SHA256) as reader:
        os.truncate(path, 120)
        with pytest.raises(FormatError, match="became shorter"):
            list(reader.object_refs())


def test_no_names_are_an_empty_frame() -> None:
    data = stream_of(SHA256, content_type=1, chunks=[-1], inline=b"x")
    assert data[112:121] == EMPTY_FRAME
    with Reader(data, SHA256) as reader:
        assert reader.named_refs == []


def test_neighbouring_inline_chunks_are_joined_and_names_sorted() -> None:
    data = stream_of(
        SHA256,
        content_type=1,
        chunks=[-1, -2],
        inline=b"abc",
        named_refs=[("z", ID_A), ("a", ID_B), ("m", ID_A)],
    )
    with Reader(data, SHA256) as reader:
        assert list(reader.chunks()) == [(-3, b"abc")]
        assert reader.named_refs == [("m", ID_A), ("z", ID_A), ("a", ID_B)]
    assert b"1:a\x000:m\x000:z\0" in zstandard.ZstdDecompressor().decompressobj().decompress(data[112 + 64 :])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunks": [-3], "inline": b"ab"}, "1 inline bytes more"),
        ({"chunks": [-1], "inline": b"ab"}, "more inline bytes"),
        ({"chunks": [0]}, "object reference 0 of 0"),
        ({"object_refs": [ID_A, ID_B, ID_A]}, f"^the object reference {ID_A} is listed twice"),
        ({"object_refs": ["aa"]}, "no sha256 id"),
        ({"named_refs": [("", ID_A)]}, "is empty"),
        ({"named_refs": [("a\0b", ID_A)]}, "has a NUL"),
        ({"named_refs": [("a", ID_A), ("a", ID_B)]}, "comes twice"),
        ({"named_refs": [("\udc80", ID_A)]}, "not UTF-8"),
    ],
)
def test_parts_that_do_not_fit_together(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        stream_of(SHA256, content_type=1, **arguments)  # type: ignore[arg-type]  # each row has other ones


def test_a_size_beyond_any_disk() -> None:
    data = stream_of(SHA256, content_type=1, chunks=[0], object_refs=[ID_A], sizes=[2**63 - 1])
    with Reader(data, SHA256) as reader:
        assert reader.size == 2**63 - 1
    with pytest.raises(TooLargeError, match="2\\^63"):
        stream_of(SHA256, content_type=1, chunks=[0, 0], object_refs=[ID_A], sizes=[1 << 62])
    with pytest.raises(TooLargeError, match="inline bytes"):
        stream_of(SHA256, content_type=1, chunks=[-(1 << 62)] * 3)
    with pytest.raises(FormatError, match="inline bytes more"):
        stream_of(SHA256, content_type=1, chunks=[-(1 << 36)])


def test_a_stream_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "stream").write_bytes(bytes(1000))
    for label, named in (("stream a", "stream a"), (None, "a splitstream")):
        with pytest.raises(InputOutputError, match=f"^reading {named}: Bad file descriptor$"):
            Reader(os.open(tmp_path / "stream", os.O_WRONLY), SHA256, label)


def test_a_stream_holds_as_many_references_as_extensions_are_told() -> None:
    assert Limits().references == MAX_REFERENCES
