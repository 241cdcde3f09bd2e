"""The cache of an interrupted pull: what comes back, and what a torn file costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.pulling import cache
from composefs_ostree.pulling.cache import Cache, read_records, record

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


def note(directory: Path, *numbers: int) -> None:
    """Have a pull note files, and be interrupted."""
    opened = Cache.open(str(directory))
    assert opened is not None
    for number in numbers:
        opened.add(bytes([number]) * 32, Entry(b"head", "ab" * 64))
    opened.close()


def noted(directory: Path) -> list[int]:
    """Which of some files the next pull finds."""
    opened = Cache.open(str(directory))
    assert opened is not None
    found = [number for number in range(5) if opened.get(bytes([number]) * 32) is not None]
    opened.close()
    return found


def test_interrupted_pulls_add_up_until_one_succeeds(tmp_path: Path) -> None:
    note(tmp_path, 0, 1)
    note(tmp_path, 2)
    assert noted(tmp_path) == [0, 1, 2]
    opened = Cache.open(str(tmp_path))
    assert opened is not None
    opened.add(bytes([3]) * 32, Entry(b"head", None))
    opened.clear()
    opened.close()
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [0]
    assert noted(tmp_path) == []
    note(tmp_path, 4)
    assert noted(tmp_path) == [4]


def test_what_stands_behind_a_torn_record_does_not_hide_what_comes_later(tmp_path: Path) -> None:
    note(tmp_path, 0)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes() + DATA[:50])
    note(tmp_path, 1)
    assert noted(tmp_path) == [0, 1]


def test_of_a_file_that_is_larger_than_any_only_the_beginning_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(tmp_path, 0, 1, 2)
    one = len(record(bytes(32), Entry(b"head", "ab" * 64)))
    monkeypatch.setattr(cache, "_MAX_SIZE", 2 * one)
    assert noted(tmp_path) == [0, 1]


def test_nothing_counts_that_was_noted_before_the_machine_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may have left an object short, or with other bytes."""
    note(tmp_path, 0)
    monkeypatch.setattr(cache, "_boot_id", lambda: b"later".ljust(37))
    assert noted(tmp_path) == []
    note(tmp_path, 1)
    assert noted(tmp_path) == [1]


def test_a_pull_beside_another_one_does_without(tmp_path: Path) -> None:
    first = Cache.open(str(tmp_path))
    assert first is not None
    assert Cache.open(str(tmp_path)) is None
    first.close()
    assert noted(tmp_path) == []


def test_where_no_cache_can_be_a_pull_does_without(tmp_path: Path) -> None:
    assert Cache.open(None) is None
    assert Cache.open(str(tmp_path / "none")) is None
