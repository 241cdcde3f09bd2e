"""Copying between repositories: everything comes, measured anew, and nothing is visible by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composefs.digest import SHA256, SHA512
from composefs.errors import CorruptError, MissingObjectError, ReadOnlyError, UnsupportedError
from composefs.fsck import check
from composefs.graph import Start
from composefs.repository import Repository
from composefs.transfer import Copied, CopiedStream, copy
from support.populated import Populated, populate


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "target", algorithm=SHA256, insecure=True)
    return tmp_path / "target"


def run(made: Populated, path: Path, *starts: Start) -> Copied:
    with Repository.open(made.path) as source, Repository.open(path, writable=True) as target:
        return copy(source, target, starts)


def ids(path: Path) -> set[str]:
    return {each.parent.name + each.name for each in (path / "objects").glob("*/*")}


def test_a_stream_with_all_that_it_names(made: Populated, target: Path) -> None:
    copied = run(made, target, Start(made.top, "stream", "top"))
    behind = {made.top, made.layer, made.blob, made.inner, made.files["three"], made.files["four"]}
    assert ids(target) == behind
    assert {*copied.streams} == {CopiedStream("top", made.top), CopiedStream(None, made.layer)}
    assert copied.images == [made.inner]
    assert (copied.objects, copied.present) == (6, 0)
    assert copied.size == sum(made.object(each).stat().st_size for each in behind)
    assert os.listdir(target / "streams") == os.listdir(target / "images") == []
    again = run(made, target, Start(made.top, "stream", "top"))
    assert (again.objects, again.size, again.present) == (0, 0, 6)


def test_the_copy_is_whole(made: Populated, target: Path) -> None:
    run(made, target, Start(made.alone, "image", "os/1"))
    assert ids(target) == {made.alone, made.files["one"], made.files["two"]}
    with Repository.open(target) as repository:
        assert check(repository).objects_corrupted == 0


def test_an_object_that_is_short_there_is_replaced(made: Populated, target: Path) -> None:
    run(made, target, Start(made.alone, "image", "os/1"))
    one = target / "objects" / made.files["one"][:2] / made.files["one"][2:]
    one.chmod(0o644)
    one.write_bytes(b"")
    assert run(made, target, Start(made.alone, "image", "os/1")).objects == 1
    assert one.read_bytes() == made.object(made.files["one"]).read_bytes()


def test_damage_does_not_spread(made: Populated, target: Path) -> None:
    path = made.object(made.files["one"])
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(CorruptError, match=f"object {made.files['one']} of .*source is damaged"):
        run(made, target, Start(made.alone, "image", "os/1"))
    assert made.files["one"] not in ids(target)


def test_a_source_that_is_not_whole(made: Populated, target: Path) -> None:
    made.object(made.files["one"]).unlink()
    with pytest.raises(MissingObjectError, match=made.files["one"]):
        run(made, target, Start(made.alone, "image", "os/1"))


def test_ids_of_another_algorithm_mean_nothing(made: Populated, tmp_path: Path) -> None:
    Repository.init(tmp_path / "other", algorithm=SHA512, insecure=True)
    with pytest.raises(UnsupportedError, match="sha256"):
        run(made, tmp_path / "other", Start(made.alone, "image", "os/1"))


def test_a_target_opened_for_reading(made: Populated, target: Path) -> None:
    with Repository.open(made.path) as source, Repository.open(target) as opened, pytest.raises(ReadOnlyError):
        copy(source, opened, [])
