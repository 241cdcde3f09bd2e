"""The cache of an interrupted pull: what comes back, and what a torn file costs."""

from __future__ import annotations

from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.pulling.cache import read_records, record

FILES = {
    b"\1" * 32: Entry(b"head", "ab" * 64),
    b"\2" * 32: Entry(b"head and content", None),
    b"\3" * 32: Entry(b"", "cd" * 32),
}
DATA = b"".join(record(file_id, entry) for file_id, entry in FILES.items())


def test_what_was_noted_comes_back() -> None:
    assert read_records(DATA) == (FILES, len(DATA))
    assert read_records(b"") == ({}, 0)


def test_a_torn_record_ends_the_file() -> None:
    ends = [len(record(file_id, entry)) for file_id, entry in FILES.items()]
    for size in range(len(DATA)):
        files, good = read_records(DATA[:size])
        assert good == max(sum(ends[:count]) for count in range(4) if sum(ends[:count]) <= size)
        assert len(files) == sum(sum(ends[: count + 1]) <= size for count in range(3))


def test_a_flipped_bit_never_comes_back() -> None:
    for position in range(len(DATA)):
        changed = DATA[:position] + bytes([DATA[position] ^ 0x10]) + DATA[position + 1 :]
        files, _ = read_records(changed)
        assert all(FILES.get(file_id) == entry for file_id, entry in files.items())
        assert len(files) < 3
