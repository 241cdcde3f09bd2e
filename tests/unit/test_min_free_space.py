"""Objects are refused before the disk is full; what frees space, or needs next to none, is not."""

from __future__ import annotations

import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from composefs.errors import NoSpaceError
from composefs.fsck.repair import check_and_repair
from composefs.gc import collect
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, RefRemoval, StreamName
from composefs.repository.store import RESERVE
from composefs.splitstream import Parts
from support.populated import CONTENT_TYPE, make_image, populate

BLOCK = 4096


def disk(monkeypatch: pytest.MonkeyPatch, *, blocks: int, free: int) -> None:
    real = os.fstatvfs

    def told(fd: int) -> SimpleNamespace:
        return SimpleNamespace(f_blocks=blocks, f_bavail=free, f_frsize=BLOCK, f_flag=real(fd).f_flag)

    monkeypatch.setattr(os, "fstatvfs", told)


@pytest.mark.parametrize(
    ("blocks", "free", "fits"),
    [
        (1000, 10, True),
        (1000, 9, False),
        (10 * RESERVE, RESERVE // BLOCK, True),
        (10 * RESERVE, RESERVE // BLOCK - 1, False),
        (0, 0, True),
    ],
    ids=["one hundredth", "less", "a large disk", "less of it", "a file system that does not tell"],
)
def test_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocks: int, free: int, fits: bool) -> None:
    made = populate(tmp_path / "repo")
    disk(monkeypatch, blocks=blocks, free=free)
    with Repository.open(made.path, writable=True) as repository:
        if fits:
            repository.objects.store_parts([b"new"])
        else:
            with pytest.raises(NoSpaceError, match=f"only {free * BLOCK} bytes are free") as caught:
                repository.objects.store_parts([b"new"])
            assert "gc" in (caught.value.hint or "")


def test_a_large_file_counts_before_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = populate(tmp_path / "repo")
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    disk(monkeypatch, blocks=1000, free=100)
    with Repository.open(made.path, writable=True) as repository, (tmp_path / "large").open("rb") as large:
        before = made.ids()
        with pytest.raises(NoSpaceError):
            repository.objects.store_fd(large.fileno())
        assert made.ids() == before
        disk(monkeypatch, blocks=0, free=0)  # a file system that does not tell
        assert repository.objects.store_fd(large.fileno()).size == 1 << 20


def test_small_files_count_each_but_those_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = populate(tmp_path / "repo")
    (tmp_path / "small").write_bytes(bytes(BLOCK))
    with Repository.open(made.path, writable=True) as repository, (tmp_path / "small").open("rb") as small:
        disk(monkeypatch, blocks=1000, free=10)
        before = made.ids()
        with pytest.raises(NoSpaceError, match=f"only {10 * BLOCK} bytes are free"):
            repository.objects.store_fd(small.fileno())
        assert made.ids() == before
        disk(monkeypatch, blocks=1000, free=11)
        assert repository.objects.store_fd(small.fileno()).stored in ("copied", "reflinked")
        disk(monkeypatch, blocks=1000, free=0)
        assert repository.objects.store_fd(small.fileno()).stored == "present"


@pytest.mark.parametrize("size", [BLOCK, 1 << 20])
def test_the_streams_and_images_of_a_repair_may_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Garbage collection, which would make room, reads these, and does not read files."""
    (tmp_path / "good").mkdir()
    (tmp_path / "good/file").write_bytes(b"x" * size)
    made = populate(tmp_path / "repo")
    with Repository.open(made.path, writable=True) as repository:
        stream = repository.streams.put(Parts(CONTENT_TYPE, random.Random(1).randbytes(size), [-size])).id
        image, [file] = make_image(repository, b"x" * size)
        repository.publish(Publication(streams=[StreamName("it", stream)], images=[ImageName(image, "it")]))
        made.object(file).unlink()
        made.object(stream).rename(tmp_path / "good/stream")
        disk(monkeypatch, blocks=1000, free=0)
        report = check_and_repair(repository, tmp_path / "good")
        assert report.repaired == [stream]
        assert report.bad == {file}
        assert [type(error) for error in report.stuck] == [NoSpaceError]


def test_a_full_disk_can_be_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = populate(tmp_path / "repo")
    disk(monkeypatch, blocks=1000, free=0)
    with Repository.open(made.path, writable=True, exclusive=True) as repository:
        repository.publish(Publication(remove_refs=[RefRemoval("oci/team/app:1", "flat")], remove_image_refs=["os/1"]))
        collect(repository)
    assert made.ids() == set()
