"""fsck finds every kind of damage, tells which names it takes with it, and repairs what another place has."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import SHA256, SHA512
from composefs.errors import InputOutputError, NotFoundError, ReadOnlyError
from composefs.fsck import Report, check, check_and_repair, hashing
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream import Parts
from support.populated import CONTENT_TYPE, Populated, make_image, populate
from support.splitstreams import stream_of

TOP_REF = "streams/refs/oci/team%2Fapp:1"
IMAGE_REF = "images/refs/os/1"


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


def run(made: Populated, *, metadata_only: bool = False) -> Report:
    with Repository.open(made.path) as repository:
        return check(repository, metadata_only=metadata_only)


def write(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    write(path, data)


@pytest.mark.parametrize("algorithm", [SHA256, SHA512], ids=str)
def test_a_whole_repository(tmp_path: Path, algorithm) -> None:
    made = populate(tmp_path / "repo", algorithm)
    report = run(made)
    assert report.ok
    assert report.as_json() == {
        "ok": True,
        "has_metadata": True,
        "objects_checked": len(made.ids()),
        "objects_corrupted": 0,
        "streams_checked": 2,
        "streams_corrupted": 0,
        "images_checked": 2,
        "images_corrupted": 0,
        "broken_links": 0,
        "missing_objects": 0,
        "errors": [],
    }
    assert list(report.lines())[-1] == "status: ok"
    assert run(made, metadata_only=True).as_json() == {**report.as_json(), "objects_checked": 0}


def test_an_empty_repository(tmp_path: Path) -> None:
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    for name in ("objects", "streams", "images"):
        (tmp_path / "repo" / name).rmdir()
    with Repository.open(tmp_path / "repo") as repository:
        assert check(repository).ok


def test_processes_that_cannot_be_started(made: Populated, monkeypatch: pytest.MonkeyPatch) -> None:
    forks = iter([os.fork])

    def fork() -> int:
        for real in forks:
            return real()
        raise BlockingIOError(errno.EAGAIN, "too many processes")

    monkeypatch.setattr(os, "fork", fork)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1})
    with pytest.raises(InputOutputError, match="starting a process"):
        run(made)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_progress_is_told(made: Populated) -> None:
    told: list[tuple[int, int]] = []
    with Repository.open(made.path) as repository:
        check(repository, report=lambda done, total: told.append((done, total)))
    count = len(made.ids())
    assert told[0] == (0, count)
    assert told[-1] == (count, count)
    assert told == sorted(told)


def test_a_damaged_file(made: Populated) -> None:
    bad = made.files["one"]
    flip(made.object(bad))
    report = run(made)
    assert report.objects_corrupted == 1
    assert (report.streams_corrupted, report.images_corrupted) == (0, 0)
    [error] = report.errors()
    assert error.startswith(f"fsck: object-digest-mismatch: objects/{bad[:2]}/{bad[2:]}: its content has the digest ")
    assert report.bad == {bad}
    assert report.as_json()["affected"] == {"streams": [], "images": [made.alone], "refs": [IMAGE_REF]}
    lines = list(report.lines())
    assert f"objects: {len(made.ids()) - 1}/{len(made.ids())} ok" in lines
    assert lines[-1] == "status: corrupted"
    assert run(made, metadata_only=True).ok, "files are not read"


def test_a_file_that_a_stream_and_an_image_need(made: Populated) -> None:
    flip(made.object(made.files["three"]))
    assert run(made).affected == {"streams": ["top"], "images": [made.inner], "refs": [TOP_REF]}


def case_lost_file(made: Populated) -> tuple[set[str], dict[str, int]]:
    made.object(made.files["three"]).unlink()
    # The layer has no name in streams/, so it counts as no stream checked.
    return {"missing-object-ref", "image-missing-object"}, {"images_corrupted": 1, "missing_objects": 1}


def case_lost_stream(made: Populated) -> tuple[set[str], dict[str, int]]:
    made.object(made.top).unlink()
    return {"broken-symlink"}, {"streams_corrupted": 1, "missing_objects": 1, "broken_links": 1}


def case_lost_inner_stream(made: Populated) -> tuple[set[str], dict[str, int]]:
    made.object(made.layer).unlink()
    return {"missing-named-ref"}, {"streams_corrupted": 1, "missing_objects": 1}


def case_damaged_stream(made: Populated) -> tuple[set[str], dict[str, int]]:
    flip(made.object(made.top))
    return {"object-digest-mismatch", "stream-open-failed"}, {"streams_corrupted": 1, "objects_corrupted": 1}


def case_damaged_inner_stream(made: Populated) -> tuple[set[str], dict[str, int]]:
    flip(made.object(made.layer))
    return {"object-digest-mismatch", "stream-open-failed"}, {"objects_corrupted": 1}


def case_lost_image(made: Populated) -> tuple[set[str], dict[str, int]]:
    made.object(made.alone).unlink()
    return {"broken-symlink"}, {"images_corrupted": 1, "missing_objects": 1, "broken_links": 1}


def case_damaged_image(made: Populated) -> tuple[set[str], dict[str, int]]:
    flip(made.object(made.alone))
    return {"object-digest-mismatch", "image-open-failed"}, {"images_corrupted": 1, "objects_corrupted": 1}


def case_no_image(made: Populated) -> tuple[set[str], dict[str, int]]:
    (made.path / "images" / made.blob).symlink_to(f"../objects/{made.blob[:2]}/{made.blob[2:]}")
    return {"image-invalid"}, {"images_corrupted": 1}


def case_no_stream(made: Populated) -> tuple[set[str], dict[str, int]]:
    (made.path / "streams/blob").symlink_to(f"../objects/{made.blob[:2]}/{made.blob[2:]}")
    return {"stream-read-failed"}, {"streams_corrupted": 1}


def case_wrong_size(made: Populated) -> tuple[set[str], dict[str, int]]:
    one = made.files["one"]
    with Repository.open(made.path, writable=True) as repository:
        data = stream_of(SHA256, content_type=CONTENT_TYPE, object_refs=[one], chunks=[0], sizes=[1])
        stream = repository.objects.store_parts([data]).id
        repository.publish(Publication(streams=[StreamName("liar", stream)]))
    return {"stream-read-failed"}, {"streams_corrupted": 1}


def case_broken_refs(made: Populated) -> tuple[set[str], dict[str, int]]:
    (made.path / "streams/refs/oci/x").symlink_to("../../nothing")
    (made.path / "images/refs/x").symlink_to(f"../{'0' * 64}")
    (made.path / "images/refs/y").symlink_to("/etc/passwd")
    return {"broken-symlink"}, {"broken_links": 3}


def case_no_symlinks(made: Populated) -> tuple[set[str], dict[str, int]]:
    (made.path / "streams/file").write_text("")
    (made.path / "images/directory").mkdir()
    os.mkfifo(made.path / "streams/refs/fifo")
    return {"entry-not-symlink"}, {}


def case_odd_objects(made: Populated) -> tuple[set[str], dict[str, int]]:
    (made.path / "objects/README").write_text("")
    (made.path / "objects" / made.garbage[:2] / "x").write_text("")
    return {"object-invalid-name"}, {}


def case_no_regular_file(made: Populated) -> tuple[set[str], dict[str, int]]:
    path = made.object(made.garbage)
    path.unlink()
    path.mkdir()
    return {"unexpected-file-type"}, {"objects_corrupted": 1}


def case_symlink(made: Populated) -> tuple[set[str], dict[str, int]]:
    path = made.object(made.garbage)
    path.rename(made.path / "elsewhere")
    path.symlink_to(made.path / "elsewhere")
    return {"object-open-failed"}, {"objects_corrupted": 1}


def case_empty(made: Populated) -> tuple[set[str], dict[str, int]]:
    write(made.object(made.garbage), b"")
    return {"object-digest-mismatch"}, {"objects_corrupted": 1}


CASES = {name.removeprefix("case_"): case for name, case in sorted(globals().items()) if name.startswith("case_")}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_damage(made: Populated, case: Callable[[Populated], tuple[set[str], dict[str, int]]]) -> None:
    kinds, counts = case(made)
    report = run(made)
    assert not report.ok
    assert {problem.kind for problem in report.problems} == kinds
    assert {error.split(": ")[1] for error in report.errors()} == kinds
    document = report.as_json()
    zero = ("objects_corrupted", "streams_corrupted", "images_corrupted", "broken_links", "missing_objects")
    assert {name: document[name] for name in zero} == {**dict.fromkeys(zero, 0), **counts}


def test_what_has_its_digest_is_useless_and_not_bad(made: Populated, tmp_path: Path) -> None:
    """Another object of the same id would be no better."""
    case_wrong_size(made)
    case_no_image(made)
    report = run(made)
    assert report.bad == set()
    assert report.useless == {made.blob, report.problems[0].object}
    assert report.affected["streams"] == ["liar", "top"], "the stream names the blob, which is no image"
    assert report.affected["images"] == [made.blob]


def test_nobody_else_is_shut_out(made: Populated) -> None:
    with Repository.open(made.path, writable=True):
        assert run(made).ok


def test_a_process_that_dies_is_no_success(made: Populated, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = os.getpid()

    def die(*_: object) -> None:
        assert os.getpid() != ours
        os._exit(0)

    monkeypatch.setattr(hashing, "check_object", die)
    with pytest.raises(InputOutputError, match=r"ended after \d+ of"):
        run(made)


def test_an_error_here_ends_the_processes(made: Populated) -> None:
    def fail(done: int, _total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with Repository.open(made.path) as repository, pytest.raises(KeyboardInterrupt):
        check(repository, report=fail)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def repair(made: Populated, source: Path) -> Report:
    with Repository.open(made.path, writable=True) as repository:
        return check_and_repair(repository, source)


def spoil(made: Populated) -> set[str]:
    """Damage or remove one of each: what is behind a lost stream is found to be bad when that is back."""
    flip(made.object(made.files["one"]))
    write(made.object(made.files["two"]), b"")
    for lost in (made.top, made.layer, made.inner, made.files["three"], made.files["four"]):
        made.object(lost).unlink()
    flip(made.object(made.alone))
    return {*made.files.values(), made.top, made.layer, made.inner, made.alone}


def test_repair_from_a_repository(made: Populated, tmp_path: Path) -> None:
    good = populate(tmp_path / "good")
    bad = spoil(made)
    report = repair(made, good.path)
    assert report.ok
    assert set(report.repaired) == bad
    assert report.as_json()["repaired"] == report.repaired
    assert f"repaired objects: {len(bad)}" in list(report.lines())
    assert run(made).ok
    assert made.ids() == good.ids()
    assert repair(made, good.path).repaired == []


def test_repair_from_files_of_any_name(made: Populated, tmp_path: Path) -> None:
    good = populate(tmp_path / "good")
    files = tmp_path / "files" / "below"
    files.mkdir(parents=True)
    for number, path in enumerate(sorted((good.path / "objects").glob("*/*"))):
        shutil.copy(path, files / f"file {number}")
    os.mkfifo(files / "fifo")
    (files / "link").symlink_to("/dev/zero")
    (files / "other").write_text("something else")
    bad = spoil(made)
    report = repair(made, tmp_path / "files")
    assert report.ok
    assert set(report.repaired) == bad
    assert made.ids() == good.ids(), "nothing else came with it"


def test_files_from_a_repository_with_another_algorithm(made: Populated, tmp_path: Path) -> None:
    good = populate(tmp_path / "good", SHA512)
    flip(made.object(made.files["one"]))
    assert repair(made, good.path).repaired == [made.files["one"]]


def test_damaged_objects_repair_nothing(made: Populated, tmp_path: Path) -> None:
    other = populate(tmp_path / "other")
    for made_too in (made, other):
        flip(made_too.object(made.files["one"]))
        flip(made_too.object(made.files["two"]))
    shutil.copy(populate(tmp_path / "good").object(made.files["two"]), other.object(made.files["two"]))
    report = repair(made, other.path)
    assert report.repaired == [made.files["two"]]
    assert report.bad == {made.files["one"]}


def test_repair_needs_a_source_and_the_right_to_write(made: Populated, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no directory"):
        repair(made, tmp_path / "none")
    with Repository.open(made.path) as repository, pytest.raises(ReadOnlyError):
        check_and_repair(repository, tmp_path)


@pytest.mark.parametrize("place", ["graph.names.open_refs", "graph.names._read_entries", "fsck.checking.read_stock"])
def test_a_ref_published_meanwhile_is_no_damage(made: Populated, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """What is read first names only what is still to be read: refs, then streams and images, then objects."""
    module, _, name = f"composefs.{place}".rpartition(".")
    real = getattr(importlib.import_module(module), name)
    published: list[str] = []

    def publish_first(*arguments: Any) -> Any:
        number = str(len(published))
        with Repository.open(made.path, writable=True) as writer:
            new = writer.streams.put(Parts(CONTENT_TYPE, number.encode(), [-1])).id
            image, _ = make_image(writer, number.encode() * 100)
            refs = [RefUpdate(f"oci/{number}", number, "flat")]
            writer.publish(Publication(streams=[StreamName(number, new)], images=[ImageName(image, number)], refs=refs))
        published.append(new)
        return real(*arguments)

    monkeypatch.setattr(f"composefs.{place}", publish_first)
    with Repository.open(made.path) as repository:
        assert check(repository).ok
    assert published


def test_two_who_repair_at_once(made: Populated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = populate(tmp_path / "good")
    bad = spoil(made)
    others: list[Report] = []

    def check_and_lose(repository: Repository, **options: Any) -> Report:
        found = check(repository, **options)
        if not others:
            monkeypatch.undo()
            others.append(repair(made, good.path))
        return found

    monkeypatch.setattr("composefs.fsck.repair.check", check_and_lose)
    report = repair(made, good.path)
    assert set(others[0].repaired) == bad
    assert report.ok
    assert report.repaired == []
