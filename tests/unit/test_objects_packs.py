"""Ranges of a pack become objects: what is stored is what was read and hashed, whatever becomes of the pack."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from composefs import fsverity
from composefs.digest import SHA256
from composefs.errors import CancelledError, ComposefsError, CorruptError, InputOutputError, NoSpaceError
from composefs.repository import Repository, packs
from composefs.repository.objects import Objects, Stored
from composefs.repository.packs import Range, store_ranges
from support.verity import kernel_verity


@pytest.fixture(params=["insecure", "secure"])
def repository(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    with kernel_verity(monkeypatch):
        Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=request.param == "insecure")
        with Repository.open(tmp_path / "repo", writable=True) as repository:
            yield repository


def id_of(data: bytes) -> str:
    return fsverity.digest_bytes(data, SHA256).hex()


def store(repository: Repository, path: Path, *ranges: Range) -> list[Stored | ComposefsError]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return list(store_ranges(repository, fd, path.name, ranges))
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "damage", [b"other" * 200, b"2" * 1000 + b"x", b"2" * 999, b""], ids=["other bytes", "longer", "shorter", "empty"]
)
def test_new_present_and_damaged_ones(repository: Repository, tmp_path: Path, damage: bytes) -> None:
    contents = [b"%d" % number * 1000 for number in range(8)]
    (tmp_path / "pack").write_bytes(b"".join(contents))
    ranges = [Range(number * 1000, 1000) for number in range(8)]
    first = store(repository, tmp_path / "pack", *ranges[:4])
    assert first == [Stored(id_of(each), 1000, "copied") for each in contents[:4]]
    damaged = repository.objects.path(id_of(contents[2]))
    damaged.unlink()
    damaged.write_bytes(damage)
    again = store(repository, tmp_path / "pack", *ranges)
    assert [each.stored for each in again if isinstance(each, Stored)] == ["present"] * 2 + ["copied", "present"] + [
        "copied"
    ] * 4
    assert again[2] == Stored(id_of(contents[2]), 1000, "copied")
    for content in contents:
        path = repository.objects.path(id_of(content))
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o777 == 0o444
        os.close(repository.objects.open(id_of(content), verify=True))
    assert os.listdir(repository.path / "staging") == []
    assert repository.objects.unsynced


def test_neighbours_are_read_at_once_and_no_more_than_a_megabyte(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 << 20)
    (tmp_path / "pack").write_bytes(data)
    reads: list[tuple[int, int]] = []
    pread = os.pread

    def counted(fd: int, size: int, offset: int) -> bytes:
        reads.append((offset, size))
        return pread(fd, size, offset)

    monkeypatch.setattr(packs.os, "pread", counted)
    step = 200 << 10
    ranges = [*(Range(number * step, step) for number in range(10)), Range(3_000_000, 10), Range(3_000_020, 0)]
    stored = store(repository, tmp_path / "pack", *ranges)
    monkeypatch.undo()
    assert [each.id for each in stored if isinstance(each, Stored)] == [
        id_of(data[each.offset : each.offset + each.size]) for each in ranges
    ]
    assert reads[:2] == [(0, 5 * step), (5 * step, 5 * step)]
    assert max(size for _, size in reads) <= 1 << 20


def test_a_pack_that_ends_too_early(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(b"abcdefgh")
    stored = store(repository, tmp_path / "pack", Range(0, 4), Range(4, 5), Range(9, 3), Range(1 << 52, 1), Range(0, 0))
    assert stored[0] == Stored(id_of(b"abcd"), 4, "copied")
    assert [type(each) for each in stored[1:4]] == [CorruptError] * 3
    assert str(stored[1]) == "the staged file 'pack' ends before byte 9"
    assert isinstance(stored[4], Stored)


def test_a_pack_that_changes_after_it_was_read(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that were hashed are those that are stored."""
    (tmp_path / "pack").write_bytes(b"good" * 100)
    real = fsverity.digest_each

    def digest_each(*arguments: object) -> list[bytes]:
        digests = real(*arguments)  # type: ignore[arg-type]
        with open(tmp_path / "pack", "r+b") as pack:
            pack.write(b"evil" * 100)
            pack.truncate(10)
        return digests

    monkeypatch.setattr(fsverity, "digest_each", digest_each)
    [stored] = store(repository, tmp_path / "pack", Range(0, 400))
    assert stored == Stored(id_of(b"good" * 100), 400, "copied")
    assert repository.objects.path(stored.id).read_bytes() == b"good" * 100


def test_errors_are_those_of_the_rows(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pack").write_bytes(b"abcdef")
    fd = os.open(tmp_path / "pack", os.O_WRONLY)
    unreadable = list(store_ranges(repository, fd, "pack", [Range(0, 3), Range(3, 3)]))
    os.close(fd)
    assert [type(each) for each in unreadable] == [InputOutputError] * 2
    wrong, right = store(repository, tmp_path / "pack", Range(0, 3, id_of(b"def")), Range(3, 3, id_of(b"def")))
    assert isinstance(wrong, CorruptError)
    assert right == Stored(id_of(b"def"), 3, "copied")

    real = Objects.finish

    def finish(self: Objects, new: object, object_id: str, *rest: object) -> Stored:
        if object_id == id_of(b"ab"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, new, object_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Objects, "finish", finish)
    full, fits = store(repository, tmp_path / "pack", Range(0, 2), Range(2, 2))
    assert isinstance(full, NoSpaceError)
    assert fits == Stored(id_of(b"cd"), 2, "copied")
    assert os.listdir(repository.path / "staging") == []


def test_ranges_after_an_interrupt_are_not_stored(repository: Repository, tmp_path: Path) -> None:
    """A list of them may take longer than anybody waits.  What has been read is stored, what has not is not read."""
    (tmp_path / "pack").write_bytes(b"abcdef")
    asked = iter([False, False, True, True])
    repository.store.interrupted = lambda: next(asked)
    ranges = [Range(0, 1), Range(1, 1), Range(3, 1), Range(5, 1), Range(0, 3), Range(3, 3)]
    stored = store(repository, tmp_path / "pack", *ranges)
    assert [each.id for each in stored[:3] if isinstance(each, Stored)] == [id_of(each) for each in (b"a", b"b", b"d")]
    assert [type(each) for each in stored[3:]] == [CancelledError] * 3
    assert not repository.objects.has(id_of(b"f"))
