"""The parts of a delta: payloads unpacked within their bounds, programs that make what they should and nothing else."""

from __future__ import annotations

import errno
import io
import lzma
import mmap
import os
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from composefs_ext import Repository
from composefs_ext.errors import (
    CorruptError,
    ExtError,
    FormatError,
    MissingObjectError,
    NoSpaceError,
    TooLargeError,
    UnsupportedError,
)
from composefs_ext.packs import Packs
from composefs_ext.protocol import PACKS
from composefs_ext.staging import Staging
from composefs_ostree.deltas import payload as unpacked
from composefs_ostree.deltas.old_files import OldFiles
from composefs_ostree.deltas.output import FileOutput, Heads
from composefs_ostree.deltas.parts import PartFetch, PartFiles
from composefs_ostree.deltas.payload import Unpacking, most_unpacked, split
from composefs_ostree.deltas.program import Program
from composefs_ostree.deltas.superblock import Part
from composefs_ostree.fetching.directories import DirectoryTransport
from composefs_ostree.fetching.files import FetchedFiles
from composefs_ostree.fetching.stage import SmallContents
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import CommitStream, Entry, write
from composefs_ostree.formats.fileheader import make_head, with_size
from composefs_ostree.formats.names import ObjectType
from support.descriptors import descriptors, left_open
from support.ostree_delta import (
    LINK,
    REGULAR,
    Announced,
    control,
    file_id,
    operation,
    part,
    part_file,
    payload,
)

Row = tuple[bytes, bytes, int, str | tuple[str, int] | None]
FILE = int(ObjectType.FILE)
DIRMETA = int(ObjectType.DIRMETA)
OLD = bytes(range(256)) * 300
EHWPOISON = 133  # what the errno module does not name


@pytest.fixture(autouse=True)
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where files are staged; nothing but what a row names may be left there, and no descriptor at all.

    A part has a hundred thousand files, and a process may have a thousand open.
    """
    monkeypatch.chdir(tmp_path)
    before = descriptors()
    yield tmp_path
    assert not left_open(before)


def sources(wanted: bytes) -> memoryview:
    if wanted != file_id(OLD):
        raise MissingObjectError("no such file")
    return memoryview(OLD)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Note which old files are asked for; each is there, with the same content."""
    asked: list[bytes] = []

    def bring(wanted: bytes) -> memoryview:
        asked.append(wanted)
        return memoryview(OLD)

    monkeypatch.setitem(globals(), "sources", bring)
    return asked


def run(
    blob: bytes, operations: bytes, objects: list[tuple[int, bytes]], plain: int = 10**6, features: Sequence[str] = ()
) -> list[Row]:
    data = payload(blob, operations)
    made = part(part_file(data), objects, plain)
    packs = Packs(Staging("."), features)
    rows = list(Program(made, split(memoryview(data)), sources, "p", SmallContents(64, packs)).run())
    packs.flush()
    return rows


def content_of(row: Row) -> bytes:
    _, data, size, staged = row
    assert data[8:16] == size.to_bytes(8, "big")
    head = make_head(size, *REGULAR, b"", b"")
    assert data.startswith(head)
    if isinstance(staged, tuple):
        name, offset = staged
        return Path(name).read_bytes()[offset : offset + size]
    return data[len(head) :] if staged is None else Path(staged).read_bytes()


@pytest.mark.parametrize("size", [0, 1, 64, 65, 100_000])
def test_whole_files(size: int) -> None:
    content = os.urandom(size)
    (row,) = run(b"xx" + content, operation("S", 0, 0, size, 2), [(FILE, file_id(content))])
    assert (row[3] is None) == (size <= 64)
    assert content_of(row) == content


def test_small_files_share_a_pack(staging: Path) -> None:
    """Whole or patched, if the core has agreed; a file that is wrong leaves none of its bytes there."""
    one, two, large = b"1" * 65, OLD[:100] + b"2", b"3" * 16_385
    patch = control(100, 1, 0) + bytes(100) + b"2"
    operations = (
        operation("S", 0, 0, 65, 32)
        + operation("o", 0, 0, 101)
        + operation("r", 0)
        + operation("B", 97, len(patch))
        + operation("c")
        + operation("S", 0, 0, len(large), 97 + len(patch))
    )
    blob = file_id(OLD) + one + patch + large
    objects = [(FILE, file_id(content)) for content in (one, two, large)]
    rows = run(blob, operations, objects, features=[PACKS])
    assert [content_of(row) for row in rows] == [one, two, large]
    (name, first), (same, second) = (row[3] for row in rows[:2] if isinstance(row[3], tuple))
    assert (name, first, second) == (same, 0, 65)
    assert isinstance(rows[2][3], str)
    for row in rows:
        (staging / (row[3][0] if isinstance(row[3], tuple) else str(row[3]))).unlink(missing_ok=True)
    with pytest.raises(CorruptError, match="checksum"):
        run(blob, operations, [*objects[:1], (FILE, bytes(32)), *objects[2:]], features=[PACKS])
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize("features", [[PACKS], []], ids=["packed", "staged"])
def test_the_last_row_waits_for_the_end_of_the_program(staging: Path, features: list[str]) -> None:
    """With it a part is done; and what is in a pack is told with the rest of that pack."""
    contents = [b"a" * 70, b"b" * 70]
    operations = operation("S", 0, 0, 70, 0) + operation("S", 0, 0, 70, 70) + b"?"
    data = payload(b"".join(contents), operations)
    made = part(part_file(data), [(FILE, file_id(content)) for content in contents], 140)
    rows = Program(made, split(memoryview(data)), sources, "p", SmallContents(64, Packs(Staging("."), features))).run()
    assert next(rows)[0] == file_id(contents[0])
    with pytest.raises(FormatError, match="does not exist"):
        next(rows)
    assert [path.read_bytes() for path in staging.iterdir()] == ([] if features else contents[:1])


def test_metadata_and_symlinks() -> None:
    data = b"some metadata"
    link = file_id(b"", LINK, b"target")
    operations = operation("S", len(data), 0) + operation("S", 1, 0, 6, len(data))
    rows = run(data + b"target", operations, [(DIRMETA, sha256(data).digest()), (FILE, link)])
    assert rows[0] == (sha256(data).digest(), data, -1, None)
    assert rows[1] == (link, make_head(0, *LINK, b"target", b""), 0, None)


def test_a_file_from_blob_and_old_file() -> None:
    new = b"start" + OLD[1000:50_000] + b"end"
    operations = (
        operation("o", 0, 0, len(new))
        + operation("w", 5, 32)
        + operation("r", 0)
        + operation("w", 49_000, 1000)
        + operation("R")
        + operation("w", 3, 37)
        + operation("c")
    )
    (row,) = run(file_id(OLD) + b"startend", operations, [(FILE, file_id(new))])
    assert content_of(row) == new


def test_a_patched_file() -> None:
    new = OLD[:40_000] + b"literal" + OLD[50_000:]
    patch = control(40_000, 7, 10_000) + bytes(40_000) + b"literal"
    patch += control(len(OLD) - 50_000, 0, 0) + bytes(len(OLD) - 50_000)
    operations = operation("o", 0, 0, len(new)) + operation("r", 0) + operation("B", 32, len(patch)) + operation("c")
    (row,) = run(file_id(OLD) + patch, operations, [(FILE, file_id(new))])
    assert content_of(row) == new


def test_an_old_file_is_brought_in_once(asked: list[bytes]) -> None:
    """ostree's programs come back to it for every piece that they take from it, and it may be large."""
    piece = operation("r", 0) + operation("w", 1, 5) + operation("R") + operation("w", 1, 0)
    blob = file_id(OLD) + file_id(b"other")
    new = (OLD[5:6] + blob[:1]) * 30
    again = operation("o", 0, 0, len(new)) + piece * 30 + operation("c")
    assert [content_of(row) for row in run(blob, again, [(FILE, file_id(new))])] == [new]
    assert asked == [file_id(OLD)]


def test_what_is_read_of_old_files_is_bounded(asked: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is made of them, and a slack: ostree's programs read one file for each, which is about as long."""
    monkeypatch.setattr("composefs_ostree.deltas.program._READ_SLACK", len(OLD))
    blob = file_id(OLD) + file_id(b"other")
    one, other = (
        operation("o", 0, 0, len(OLD)) + operation("r", offset) + operation("w", len(OLD), 0) + operation("c")
        for offset in (0, 32)
    )
    rows = run(blob, (one + other) * 10, [(FILE, file_id(OLD))] * 20, plain=20 * len(OLD))
    assert len(rows) == len(asked) == 20
    for row in rows:
        Path(str(row[3])).unlink()
    asked.clear()
    by_turns = operation("o", 0, 0, len(OLD)) + (operation("r", 0) + operation("r", 32)) * 100
    with pytest.raises(TooLargeError, match="reads far more of old files than it makes of them"):
        run(blob, by_turns, [(FILE, file_id(OLD))])
    assert len(asked) == 2
    asked.clear()
    with pytest.raises(TooLargeError):
        run(blob, one + by_turns, [(FILE, file_id(OLD))] * 2)
    assert len(asked) == 1 + 5


def test_closing_a_file_ends_reading_from_the_old_one() -> None:
    one, two = OLD[:100], b"from the blob"
    operations = operation("o", 0, 0, 100) + operation("r", 0) + operation("w", 100, 0) + operation("c")
    operations += operation("o", 0, 0, len(two)) + operation("w", len(two), 32) + operation("c")
    rows = run(file_id(OLD) + two, operations, [(FILE, file_id(one)), (FILE, file_id(two))])
    assert [content_of(row) for row in rows] == [one, two]


GOOD = file_id(b"a" * 100)
HOSTILE: dict[str, tuple[bytes, bytes, list[tuple[int, bytes]], type[ExtError]]] = {
    "wrong content": (b"b" * 100, operation("S", 0, 0, 100, 0), [(FILE, GOOD)], CorruptError),
    "wrong metadata": (b"b", operation("S", 1, 0), [(DIRMETA, bytes(32))], CorruptError),
    "wrong symlink": (b"b", operation("S", 1, 0, 1, 0), [(FILE, GOOD)], CorruptError),
    "empty symlink": (b"b", operation("S", 1, 0, 0, 0), [(FILE, GOOD)], FormatError),
    "long symlink": (b"b" * 5000, operation("S", 1, 0, 5000, 0), [(FILE, GOOD)], FormatError),
    "blob too short": (b"a" * 99, operation("S", 0, 0, 100, 0), [(FILE, GOOD)], FormatError),
    "offset behind blob": (b"a" * 100, operation("S", 0, 0, 100, 1), [(FILE, GOOD)], FormatError),
    "huge offset": (b"a" * 100, operation("S", 0, 0, 100, 2**63), [(FILE, GOOD)], FormatError),
    "huge size": (b"a", operation("S", 0, 0, 2**63, 0), [(FILE, GOOD)], FormatError),
    "huge file": (b"a", operation("o", 0, 0, 2**60), [(FILE, GOOD)], CorruptError),
    "endless number": (b"a", b"S" + b"\xff" * 20, [(FILE, GOOD)], FormatError),
    "cut number": (b"a", b"S\xff", [(FILE, GOOD)], FormatError),
    "no such mode": (b"a" * 100, operation("S", 2, 0, 100, 0), [(FILE, GOOD)], FormatError),
    "no such xattrs": (b"a" * 100, operation("S", 0, 1, 100, 0), [(FILE, GOOD)], FormatError),
    "no such operation": (b"", b"X", [(FILE, GOOD)], FormatError),
    "begun twice": (b"", operation("o", 0, 0, 100) * 2, [(FILE, GOOD)] * 2, FormatError),
    "metadata begun": (
        b"a" * 100,
        operation("o", 0, 0, 100) + operation("w", 100, 0) + b"c",
        [(DIRMETA, GOOD)],
        FormatError,
    ),
    "symlink begun": (b"", operation("o", 1, 0, 9), [(FILE, GOOD)], FormatError),
    "not ended": (b"a" * 100, operation("o", 0, 0, 100) + operation("w", 100, 0), [(FILE, GOOD)], FormatError),
    "ended early": (b"a" * 100, operation("o", 0, 0, 100) + operation("w", 99, 0) + b"c", [(FILE, GOOD)], CorruptError),
    "shorter than it says": (
        b"a" * 100,
        operation("o", 0, 0, 101) + operation("w", 100, 0) + b"c",
        [(FILE, GOOD)],  # an id does not tell the size
        CorruptError,
    ),
    "written beyond": (b"a" * 101, operation("o", 0, 0, 100) + operation("w", 101, 0), [(FILE, GOOD)], CorruptError),
    "copied beyond": (
        file_id(OLD),
        operation("o", 0, 0, 100) + operation("r", 0) + operation("w", 101, 0),
        [(FILE, GOOD)],
        CorruptError,
    ),
    "ended without": (b"", b"c", [(FILE, GOOD)], FormatError),
    "written without": (b"a", operation("w", 1, 0), [(FILE, GOOD)], FormatError),
    "patched without": (b"a", operation("o", 0, 0, 1) + operation("B", 0, 1), [(FILE, GOOD)], FormatError),
    "patched outside": (file_id(OLD), operation("r", 0) + operation("B", 0, 0), [(FILE, GOOD)], FormatError),
    "too few objects": (b"", b"R", [(FILE, GOOD)], FormatError),
    "too many objects": (b"a", operation("S", 0, 0, 1, 0) * 2, [(FILE, file_id(b"a"))], FormatError),
    "id outside": (b"a" * 40, operation("r", 9), [(FILE, GOOD)], FormatError),
    "other source": (b"a" * 40, operation("r", 0), [(FILE, GOOD)], MissingObjectError),
    "read behind source": (
        file_id(OLD),
        operation("o", 0, 0, 100) + operation("r", 0) + operation("w", 100, len(OLD) - 99),
        [(FILE, GOOD)],
        CorruptError,
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_programs(case: str, staging: Path) -> None:
    blob, operations, objects, error = HOSTILE[case]
    with pytest.raises(error):
        run(blob, operations, objects)
    assert list(staging.iterdir()) == []


def test_the_target_of_a_symlink_is_not_copied_before_its_length_is_known() -> None:
    heads = Heads([LINK], [b""])
    target = memoryview(mmap.mmap(-1, 64 << 20))
    tracemalloc.start()
    with pytest.raises(FormatError, match=f"target of {64 << 20} bytes"):
        heads.symlink_row(bytes(32), 0, 0, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_that_cannot_fit_is_not_begun(staging: Path) -> None:
    """Few operations can copy an old file again and again."""
    with pytest.raises(NoSpaceError):
        run(b"", operation("o", 0, 0, 1 << 60), [(FILE, GOOD)], plain=1 << 60)
    assert list(staging.iterdir()) == []


def test_more_than_announced_is_refused_before_it_is_made(staging: Path) -> None:
    content = bytes(3 << 20)
    with pytest.raises(CorruptError, match="longer than"):
        run(content, operation("S", 0, 0, len(content), 0), [(FILE, file_id(content))], plain=1 << 19)
    assert list(staging.iterdir()) == []


def test_small_files_that_are_made_again_and_again_are_more_than_announced() -> None:
    content = bytes(10_000)
    with pytest.raises(CorruptError, match="longer than"):
        run(content, operation("S", 0, 0, len(content), 0) * 200, [(FILE, file_id(content))] * 200, 10_000, [PACKS])


@pytest.mark.parametrize(
    ("limit", "says"),
    [
        ("program.MAX_OPERATIONS", "more than 100 operations"),
        ("program._MAX_BYTES", "more than 100 bytes of operations"),
        ("payload._MAX_TABLE", "more than 100 bytes of modes and attributes"),
        ("payload._MAX_ENTRIES", "more than 100 sets of attributes"),
    ],
)
def test_what_a_part_may_have_is_bounded(monkeypatch: pytest.MonkeyPatch, limit: str, says: str) -> None:
    data = gvariant.encode("(a(uuu)aa(ayay)ayay)", ([], [[]] * 101, b"", b"R" * 101))
    monkeypatch.setattr(f"composefs_ostree.deltas.{limit}", 100)
    made, packs = part(b"", [(FILE, GOOD)], 0), Packs(Staging("."), ())
    with pytest.raises(ExtError, match=says):
        list(Program(made, split(memoryview(data)), sources, "p", SmallContents(64, packs)).run())


def test_the_metadata_of_a_part_are_bounded_whatever_the_superblock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs_ostree.deltas.program.MAX_METADATA", 100)
    blob = bytes(101)
    one, two = (operation("S", size, start) for size, start in ((60, 0), (40, 60)))
    objects = [(DIRMETA, sha256(bytes(size)).digest()) for size in (60, 40, 1)]
    assert len(run(blob, one + two, objects[:2])) == 2
    with pytest.raises(TooLargeError, match="more than 100 bytes of metadata"):
        run(blob, one + two + operation("S", 1, 100), objects)


def test_a_file_of_many_small_pieces_is_not_kept_in_memory() -> None:
    size = 10_000_000
    output = FileOutput(file_id(bytes(size)), b"", b"", size, "p", SmallContents(64, Packs(Staging("."), ())))
    tracemalloc.start()
    try:
        for _ in range(size // 1000):
            output.write(bytes(1000))
        assert tracemalloc.get_traced_memory()[1] < size // 10
    finally:
        tracemalloc.stop()
        output.discard()


# Files of the old commit


REPOSITORY = Repository({"algorithm": "sha256", "objects": "/nowhere"})


def held(entries: dict[bytes, Entry]) -> OldFiles:
    out = io.BytesIO()
    _, references = write(out, min(entries), entries)
    return OldFiles(CommitStream(out.getvalue(), references), REPOSITORY)


SMALL = b"content"
HEAD = make_head(len(SMALL), *REGULAR, b"", b"")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({bytes(32): Entry(HEAD + SMALL, None)}, "the old commit does not have it"),
        ({file_id(SMALL): Entry(HEAD + SMALL[1:], None)}, "it has 6 bytes, not 7"),
        ({file_id(SMALL): Entry(HEAD, "ab" * 32)}, "No such file or directory"),
        ({file_id(SMALL): Entry(SMALL, None)}, "malformed file header"),
    ],
    ids=["another", "shorter", "elsewhere", "no file"],
)
def test_old_files_that_cannot_be_had(entries: dict[bytes, Entry], says: str) -> None:
    with pytest.raises(MissingObjectError, match=f"the delta needs file {file_id(SMALL).hex()}: {says}"):
        held(entries).read(file_id(SMALL))


@pytest.mark.parametrize("number", [errno.EFAULT, EHWPOISON, errno.ENOMEM, errno.EINVAL])
def test_an_old_file_that_the_kernel_cannot_bring_in_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Mapped(mmap.mmap):
        def madvise(self, *_arguments: int) -> None:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mmap, "mmap", Mapped)
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/cd").write_bytes(SMALL)
    out = io.BytesIO()
    _, references = write(out, file_id(SMALL), {file_id(SMALL): Entry(HEAD, "abcd")})
    files = OldFiles(
        CommitStream(out.getvalue(), references), Repository({"algorithm": "sha256", "objects": str(tmp_path)})
    )
    if number == errno.EINVAL:  # an older kernel
        assert files.read(file_id(SMALL)) == SMALL
    else:
        with pytest.raises(MissingObjectError, match=r": Input/output error$"):
            files.read(file_id(SMALL))


def test_an_old_file_that_is_empty_and_an_object_all_the_same(tmp_path: Path) -> None:
    """As in a stream of others; ours have it inline."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/cd").touch()
    out = io.BytesIO()
    _, references = write(out, file_id(b""), {file_id(b""): Entry(with_size(HEAD, 0), "abcd")})
    repository = Repository({"algorithm": "sha256", "objects": str(tmp_path)})
    files = OldFiles(CommitStream(out.getvalue(), references), repository)
    assert files.read(file_id(b"")) == b""
    files.check()


def test_an_old_file_that_is_damaged_is_found_when_it_was_used() -> None:
    other = file_id(b"other")
    files = held({file_id(SMALL): Entry(HEAD + SMALL.upper(), None), other: Entry(with_size(HEAD, 5) + b"other", None)})
    assert files.read(other) == b"other"
    files.check()
    assert files.read(file_id(SMALL)) == SMALL.upper()
    with pytest.raises(
        MissingObjectError, match=f"file {file_id(SMALL).hex()}, which the delta needs, is damaged here"
    ):
        files.check()
    # A program may read from another one before it ends the file that it makes.
    files.read(other)
    with pytest.raises(MissingObjectError, match="is damaged here"):
        files.check()


# Payloads


def unpack(data: bytes, limit: int = 1 << 20, step: int = 1000) -> bytes:
    unpacking = Unpacking(limit)
    for start in range(0, len(data), step):
        unpacking.feed(data[start : start + step])
    return bytes(unpacking.finish())


@pytest.mark.parametrize("compression", ["", "x"])
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_payloads_come_in_pieces(compression: str, step: int) -> None:
    data = os.urandom(3000) + bytes(3000)
    assert unpack(part_file(data, compression), step=step) == data


def test_a_large_payload_goes_to_a_file_without_a_name(monkeypatch: pytest.MonkeyPatch, staging: Path) -> None:
    monkeypatch.setattr(unpacked, "MOST_IN_MEMORY", 5000)
    data = os.urandom(20_000)
    before = len(os.listdir("/proc/self/fd"))
    for compression in ("", "x"):
        assert unpack(part_file(data, compression)) == data
    unpacking = Unpacking(len(data))
    unpacking.feed(part_file(data))
    assert os.readlink(f"/proc/self/fd/{unpacking._fd}").startswith(f"{staging}/part-")
    unpacking.discard()
    assert list(staging.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_xz_bomb_stops_at_its_bound() -> None:
    bomb = b"x" + lzma.compress(bytes(300 << 20), preset=0)
    unpacking = Unpacking(most_unpacked(1000))
    with pytest.raises(CorruptError, match="longer than"):
        unpacking.feed(bomb)
    assert unpacking._size < most_unpacked(1000) + (2 << 20)
    unpacking.discard()


def test_an_xz_stream_that_wants_much_memory_is_refused() -> None:
    data = bytearray(lzma.compress(b"data", preset=0))
    # The dictionary's size is one byte of the block header, which has a CRC of its own.
    header = data[12:24]
    header[4] = 38
    header[8:12] = zlib.crc32(bytes(header[:8])).to_bytes(4, "little")
    data[12:24] = header
    with pytest.raises(CorruptError, match=r"[Mm]emory"):
        unpack(b"x" + bytes(data))


@pytest.mark.parametrize(
    ("file", "error"),
    [
        (b"", CorruptError),
        (b"g\x1f\x8b", UnsupportedError),
        (b"x", CorruptError),
        (b"xnothing", CorruptError),
        (part_file(b"data")[:-1], CorruptError),
        (part_file(b"data") + b"more", CorruptError),
        (part_file(b"data") + part_file(b"data")[1:], CorruptError),
    ],
)
def test_hostile_files(file: bytes, error: type[ExtError]) -> None:
    for step in (1, 1000):
        with pytest.raises(error):
            unpack(file, step=step)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\0", b"\4\3\2", b"\0\1\0", b"\xff" * 300, bytes(4) + b"\4\4\4", b"aa\4\2\4\4\0"]
)
def test_hostile_payloads(data: bytes) -> None:
    with pytest.raises(FormatError):
        split(memoryview(data))


def test_members() -> None:
    data = gvariant.encode(
        "(a(uuu)aa(ayay)ayay)", ([(1 << 24, 2 << 24, 3 << 24)], [[], [(b"a\0", b"b")]], b"blob", b"code")
    )
    members = split(memoryview(data))
    assert members.modes == [(1, 2, 3)]
    assert members.xattrs == [b"", gvariant.encode("a(ayay)", [(b"a\0", b"b")])]
    assert (bytes(members.blob), bytes(members.operations)) == (b"blob", b"code")


# Fetching


def announced(content: bytes, **changes: object) -> Announced:
    file = part_file(payload(content, operation("S", 0, 0, len(content), 0)))
    return Announced(file, [(FILE, file_id(content))], len(content))._replace(**changes)


def rows_of(directory: Path, header: Part) -> list[Row]:
    """Carry out a part whose file is in the directory."""
    packs = Packs(Staging("."), ())
    beside = FetchedFiles(DirectoryTransport(str(directory)), SmallContents(64, packs))
    files = PartFiles(
        [header], DirectoryTransport(str(directory)), OldFiles(None, REPOSITORY), SmallContents(64, packs), beside
    )
    rows: list[Row] = []
    assert files.start_part(0, "w") == header.object_count
    while files.timeout() is not None:
        rows += files.step()
    return rows


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda each: {}, ""),
        (lambda each: {"checksum": bytes(32)}, "its size or checksum"),
        (lambda each: {"size": len(each.file) + 1}, "its size or checksum"),
        (lambda each: {"size": len(each.file) - 1}, "longer than"),
    ],
)
def test_a_part_has_the_digest_and_size_of_its_superblock(
    tmp_path: Path,
    change: Callable[[Announced], dict[str, object]],
    says: str,
    inline: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(unpacked, "MOST_IN_MEMORY", 10)  # what is refused is not left in a file, either
    content = b"c" * 1000
    made = announced(content)
    wrong = made._replace(**change(made))
    header = part(made.file, made.objects, made.plain)._replace(
        path="0", checksum=wrong.digest, size=wrong.size or len(made.file), inline=made.file if inline else None
    )
    (tmp_path / "0").write_bytes(made.file)
    rows = rows_of(tmp_path, header)
    if not says:
        assert [content_of(row) for row in rows] == [content]
        assert [row[3] for row in rows] == ["w-1"]  # by what the worker gave, as others stage there too
        return
    ((_, error),) = rows
    assert error["data"]["kind"] == "corrupt"
    assert says in error["message"]
    assert str(tmp_path / "0") in error["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0"]


def test_a_part_that_is_not_there(tmp_path: Path) -> None:
    made = announced(b"c")
    header = part(made.file, made.objects, 1)._replace(path="0")
    ((_, error),) = rows_of(tmp_path, header)
    assert error["data"]["kind"] == "not_found"


def test_a_compression_that_is_not_known_here_is_no_damage() -> None:
    """Unless the checksum is wrong too: objects are fetched one by one in place of the one, and not of the other."""
    file = b"g" + bytes(10)
    header = part(file, [(FILE, GOOD)], 1)
    for made, error in ((header, UnsupportedError), (header._replace(checksum=bytes(32)), CorruptError)):
        fetch = PartFetch(made)
        fetch.begin()
        for start in range(len(file)):
            assert fetch.take(file[start : start + 1]) is None
        with pytest.raises(error):
            fetch.finish()


def test_a_repeated_transfer_keeps_no_file_of_an_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacked, "MOST_IN_MEMORY", 10)
    monkeypatch.chdir(tmp_path)
    file = bytes(100)  # the first byte says that it is not compressed
    fetch = PartFetch(part(file, [(FILE, GOOD)], 1))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        fetch.begin()
        assert fetch.take(file[:50]) is None
        assert len(os.listdir("/proc/self/fd")) == before + 1
    fetch.discard()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_repeated_transfer_starts_anew() -> None:
    made = announced(b"c" * 1000)
    fetch = PartFetch(part(made.file, made.objects, made.plain))
    for _ in range(3):
        fetch.begin()
        fetch.take(made.file[:50])
    fetch.begin()
    fetch.take(made.file)
    assert bytes(split(fetch.finish()).blob) == b"c" * 1000
