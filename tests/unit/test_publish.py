"""Publishing makes all of a call visible or, when an expectation is broken, nothing; twice is the same as once."""

import errno
import os
import resource
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.errors import (
    BusyError,
    ComposefsError,
    ConflictError,
    ExistsError,
    FormatError,
    MissingObjectError,
    NoSpaceError,
    NotFoundError,
    UsageError,
)
from composefs.linux.locks import try_lock
from composefs.repository import Repository, objects, publish
from composefs.repository.links import make_directories
from composefs.repository.publication import ANY, ImageName, Publication, RefRemoval, RefUpdate, StreamName
from composefs.splitstream import Parts

NONE = "00" * 32


@pytest.fixture
def repository(tmp_path: Path):
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / "repo", writable=True) as repository:
        yield repository


def stream(repository: Repository, content: bytes = b"one") -> str:
    return repository.streams.put(Parts(1, content, [-len(content)])).id


def names(repository: Repository) -> dict[str, str]:
    """Everything that has a name."""
    found = {}
    for top in ("streams", "images"):
        for directory, directories, files in os.walk(repository.path / top):
            for name in [*directories, *files]:
                path = Path(directory, name)
                if path.is_symlink():
                    found[str(path.relative_to(repository.path))] = str(path.readlink())
    return found


def test_everything_at_once(repository: Repository) -> None:
    one, image = stream(repository), repository.images.put([b"image"]).id
    publication = Publication(
        streams=[StreamName("a-1", one)],
        images=[ImageName(image, "t/u"), ImageName(image)],
        refs=[RefUpdate("a/x/y", "a-1", "flat", expect=None)],
    )
    done = repository.publish(publication)
    assert done.streams == [("a-1", one, None)]
    assert done.images == [image, image]
    assert done.refs == [("a/x/y", None)]
    assert names(repository) == {
        "streams/a-1": f"../objects/{one[:2]}/{one[2:]}",
        "streams/refs/a/x%2Fy": "../../a-1",
        f"images/{image}": f"../objects/{image[:2]}/{image[2:]}",
        "images/refs/t/u": f"../../{image}",
    }


def test_the_second_time_nothing_is_written(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    one, image = stream(repository), repository.images.put([b"image"]).id
    publication = Publication(
        streams=[StreamName("a-1", one)], images=[ImageName(image, "t")], refs=[RefUpdate("a/x", "a-1", "flat")]
    )
    repository.publish(publication)

    def unexpected(*_arguments: object) -> None:
        raise AssertionError("nothing is new")

    monkeypatch.setattr(objects, "sync_file_system", unexpected)
    monkeypatch.setattr(publish, "point", unexpected)
    synced: list[str] = []
    monkeypatch.setattr(publish, "sync_directory", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    done = repository.publish(publication)
    assert done.streams == [("a-1", one, one)]
    assert done.refs == [("a/x", "a-1")]
    # Who wrote the names may have been killed before they were durable.
    directories = ("images", "streams", "images/refs", "streams/refs/a")
    assert synced == [str(repository.path / directory) for directory in directories]


def test_an_object_that_came_back_is_waited_for(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stream(repository)
    repository.publish(Publication(streams=[StreamName("a-1", one)]))
    repository.objects.path(one).unlink()
    assert stream(repository) == one
    waits: list[object] = []
    monkeypatch.setattr(objects, "sync_file_system", waits.append)
    repository.publish(Publication(streams=[StreamName("a-1", one)]))
    repository.publish(Publication(streams=[StreamName("a-1", one)]))
    assert len(waits) == 1


def test_a_stream_has_no_name_before_its_images(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    one, image = stream(repository), repository.images.put([b"image"]).id

    written: list[str] = []

    def full(name: str, _at: int, _target: str) -> None:
        written.append(name)
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(publish, "point", full)
    with pytest.raises(NoSpaceError, match=f"publishing in {repository.path}: "):
        repository.publish(Publication(streams=[StreamName("a-1", one)], images=[ImageName(image)]))
    assert written == [image]


def test_what_happens_to_another_id(repository: Repository) -> None:
    one, two = stream(repository), stream(repository, b"two")
    repository.publish(Publication(streams=[StreamName("a", one)]))
    with pytest.raises(ExistsError, match=one):
        repository.publish(Publication(streams=[StreamName("a", two)]))
    assert repository.publish(Publication(streams=[StreamName("a", two, "keep")])).streams == [("a", one, one)]
    assert repository.streams.resolve("a") == one
    assert repository.publish(Publication(streams=[StreamName("a", two, "replace")])).streams == [("a", two, one)]
    assert repository.streams.resolve("a") == two


def test_a_stream_whose_object_is_gone_is_not_kept(repository: Repository) -> None:
    one, two = stream(repository), stream(repository, b"two")
    repository.publish(Publication(streams=[StreamName("a", one)]))
    repository.objects.path(one).unlink()
    assert repository.publish(Publication(streams=[StreamName("a", two, "keep")])).streams == [("a", two, one)]


@pytest.mark.parametrize(
    "broken",
    [
        lambda one, two: {"streams": [StreamName("a", two, "replace", expect=two)]},
        lambda one, two: {"streams": [StreamName("a", one, expect=None)]},
        lambda one, two: {"streams": [StreamName("free", one, expect=one)]},
        lambda one, two: {"refs": [RefUpdate("d/x", "b", "flat", expect="b")]},
        lambda one, two: {"refs": [RefUpdate("d/x", "b", "flat", expect=None)]},
        lambda one, two: {"refs": [RefUpdate("d/free", "b", "flat", expect="a")]},
        lambda one, two: {"remove_refs": [RefRemoval("d/x", "flat", expect="b")]},
    ],
)
def test_a_broken_expectation_changes_nothing(repository: Repository, broken) -> None:
    one, two = stream(repository), stream(repository, b"two")
    repository.publish(
        Publication(streams=[StreamName("a", one), StreamName("b", two)], refs=[RefUpdate("d/x", "a", "flat")])
    )
    before = names(repository)
    image = repository.images.put([b"image"]).id
    call = {"streams": [], "refs": [], **broken(one, two)}
    call["streams"] = [StreamName("new", one), *call["streams"]]
    call["refs"] = [RefUpdate("d/new", "new", "flat"), *call["refs"]]
    with pytest.raises(ConflictError, match="was expected"):
        repository.publish(Publication(images=[ImageName(image, "new")], **call))
    assert names(repository) == before


def test_a_broken_expectation_says_what_there_is(repository: Repository) -> None:
    one, two = stream(repository), stream(repository, b"two")
    repository.publish(Publication(streams=[StreamName("a", one)], refs=[RefUpdate("d/x", "a", "flat")]))
    for call, message in (
        ({"streams": [StreamName("a", one, expect=None)]}, f"the stream 'a' is {one}; nothing was expected"),
        ({"streams": [StreamName("a", one, expect=two)]}, f"the stream 'a' is {one}; {two} was expected"),
        ({"streams": [StreamName("b", one, expect=two)]}, f"the stream 'b' does not exist; {two} was expected"),
        ({"refs": [RefUpdate("d/x", "a", "flat", expect="b")]}, "the ref 'd/x' is a; b was expected"),
        ({"refs": [RefUpdate("d/y", "a", "flat", expect="a")]}, "the ref 'd/y' does not exist; a was expected"),
    ):
        with pytest.raises(ConflictError, match=f"^{message}$"):
            repository.publish(Publication(**call))


def test_expectations_that_hold(repository: Repository) -> None:
    one, two = stream(repository), stream(repository, b"two")
    repository.publish(Publication(streams=[StreamName("a", one, expect=None)]))
    repository.publish(Publication(refs=[RefUpdate("d/x", "a", "flat", expect=None)]))
    repository.publish(Publication(streams=[StreamName("a", two, "replace", expect=one)]))
    repository.publish(Publication(refs=[RefUpdate("d/x", "a", "flat", expect="a")]))
    repository.publish(Publication(remove_refs=[RefRemoval("d/x", "flat", expect="a")]))
    assert list(names(repository)) == ["streams/a"]


def test_a_ref_without_its_stream_may_be_taken_for_absent(repository: Repository) -> None:
    one, two = stream(repository), stream(repository, b"two")
    for expect in (None, "a"):
        repository.publish(Publication(streams=[StreamName("a", one)], refs=[RefUpdate("d/x", "a", "flat")]))
        (repository.path / "streams/a").unlink()
        repository.publish(
            Publication(streams=[StreamName("b", two)], refs=[RefUpdate("d/x", "b", "flat", expect=expect)])
        )
        assert repository.refs.read("d/x", "flat") == "b"


def test_an_expectation_broken_between_the_look_and_the_lock(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = stream(repository), stream(repository, b"two")
    real = objects.sync_file_system

    def late(_fd: int) -> None:
        monkeypatch.setattr(objects, "sync_file_system", real)
        repository.publish(Publication(streams=[StreamName("a", two)]))

    monkeypatch.setattr(objects, "sync_file_system", late)
    with pytest.raises(ConflictError):
        repository.publish(Publication(streams=[StreamName("a", one, expect=None)]))
    assert repository.streams.resolve("a") == two


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (Publication(streams=[StreamName("a", NONE)]), MissingObjectError),
        (Publication(streams=[StreamName("../a", NONE)]), FormatError),
        (Publication(streams=[StreamName("refs", NONE)]), FormatError),
        (Publication(images=[ImageName(NONE)]), MissingObjectError),
        (Publication(images=[ImageName("../../x")]), FormatError),
        (Publication(refs=[RefUpdate("d/x", "none", "flat")]), NotFoundError),
        (Publication(refs=[RefUpdate("d/x", "../a", "flat")]), FormatError),
        (Publication(refs=[RefUpdate("../x", "there", "path")]), FormatError),
        (Publication(refs=[RefUpdate("d/x", "there", "flat"), RefUpdate("d/x", "there", "path")]), UsageError),
        (Publication(refs=[RefUpdate("d/x", "there", "path"), RefUpdate("d/x/y", "there", "path")]), UsageError),
        (Publication(refs=[RefUpdate("x", "there", "path"), RefUpdate("x/y", "there", "path")]), UsageError),
        (Publication(refs=[RefUpdate("d/x", "there", "flat")], remove_refs=[RefRemoval("d/x", "flat")]), UsageError),
        (Publication(refs=[RefUpdate("taken/x", "there", "path")]), ExistsError),
        (Publication(remove_refs=[RefRemoval("d/none", "flat")]), NotFoundError),
        (Publication(remove_image_refs=["none"]), NotFoundError),
    ],
)
def test_calls_that_make_no_sense_change_nothing(
    repository: Repository, call: Publication, error: type[ComposefsError]
) -> None:
    there = stream(repository)
    repository.publish(Publication(streams=[StreamName("there", there)], refs=[RefUpdate("taken", "there", "path")]))
    before = names(repository)
    new = StreamName("new", there)
    with pytest.raises(error):
        repository.publish(
            Publication([*call.streams, new], call.images, call.refs, call.remove_refs, call.remove_image_refs)
        )
    assert names(repository) == before


def test_a_directory_of_refs_is_not_replaced_by_a_ref(repository: Repository) -> None:
    one = stream(repository)
    repository.publish(Publication(streams=[StreamName("a", one)], refs=[RefUpdate("d/e/x", "a", "path")]))
    before = names(repository)
    with pytest.raises(ComposefsError, match="d/e"):
        repository.publish(Publication(streams=[StreamName("b", one)], refs=[RefUpdate("d/e", "a", "path")]))
    assert names(repository) == before
    repository.publish(Publication(remove_refs=[RefRemoval("d/e/x", "path")]))
    repository.publish(Publication(refs=[RefUpdate("d/e", "a", "path")]))
    assert repository.refs.list(odd=pytest.fail) == [("d/e", "a")]


def test_a_ref_is_not_left_dangling(repository: Repository) -> None:
    one = stream(repository)
    repository.publish(Publication(streams=[StreamName("a", one)]))
    repository.objects.path(one).unlink()
    with pytest.raises(MissingObjectError):
        repository.publish(Publication(refs=[RefUpdate("d/x", "a", "flat")]))


def test_removing_leaves_other_refs_and_no_empty_directories(repository: Repository) -> None:
    one, image = stream(repository), repository.images.put([b"image"]).id
    repository.publish(
        Publication(
            streams=[StreamName("a", one)],
            refs=[RefUpdate("d/e/x", "a", "path"), RefUpdate("d/y", "a", "path")],
            images=[ImageName(image, "i/j")],
        )
    )
    done = repository.publish(Publication(remove_refs=[RefRemoval("d/e/x", "path")], remove_image_refs=["i/j"]))
    assert done.removed_refs == [("d/e/x", "a")]
    assert done.removed_image_refs == [("i/j", image)]
    assert repository.refs.list(odd=pytest.fail) == [("d/y", "a")]
    assert os.listdir(repository.path / "streams/refs/d") == ["y"]
    assert os.listdir(repository.path / "images/refs") == []
    assert repository.images.is_named(image)


def test_more_refs_than_descriptors(repository: Repository) -> None:
    one = stream(repository)
    refs = [RefUpdate(f"d{number}/x", "a", "path") for number in range(200)]
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (150, before[1]))
    try:
        repository.publish(Publication(streams=[StreamName("a", one)], refs=refs))
        assert len(repository.refs.list(odd=pytest.fail)) == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_full_disk(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    one = stream(repository)

    def full(*_arguments: object, **_keywords: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(NoSpaceError, match="publishing"):
            repository.publish(Publication(streams=[StreamName("a", one)]))
    assert os.listdir(repository.path / "streams") == [], "no temporary name stays"
    repository.publish(Publication(streams=[StreamName("a", one)]))


def test_somebody_else_publishes_for_ever(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_LOCK_SECONDS", 0.0)
    fd = os.open(repository.path / "streams", os.O_RDONLY)
    assert try_lock(fd, exclusive=True)
    with pytest.raises(BusyError, match="publishing in"):
        repository.publish(Publication(streams=[StreamName("a", stream(repository))]))
    os.close(fd)
    assert names(repository) == {}


def test_no_expectation_is_not_the_expectation_of_nothing() -> None:
    assert StreamName("a", NONE).expect is ANY
    assert ANY is not None


def test_references_of_a_stream_must_be_here(repository: Repository) -> None:
    here = repository.objects.store_parts([b"x"]).id
    with pytest.raises(MissingObjectError, match=NONE):
        repository.streams.put(Parts(1, chunks=[0], object_refs=[NONE]))
    with pytest.raises(MissingObjectError, match=NONE):
        repository.streams.put(Parts(1, named_refs=[("a", here), ("b", NONE)]))
    with pytest.raises(FormatError):
        repository.streams.put(Parts(1, object_refs=["../" * 21 + "x"]))
    assert os.listdir(repository.path / "staging") == []


def test_what_the_caller_knows_is_not_looked_for_again(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = (repository.objects.store_parts([content]).id for content in (b"one", b"three"))
    looked: list[str] = []
    real = repository.objects.sizes
    monkeypatch.setattr(repository.objects, "sizes", lambda ids: looked.extend(ids) or real(ids))
    stored = repository.streams.put(Parts(1, b"", [1], [one, two], [("name", one)]), known={one: 3, two: 5})
    assert not looked
    with repository.streams.open(stored.id) as reader:
        assert reader.size == 5
    repository.objects.path(two).unlink()
    with pytest.raises(MissingObjectError, match=two):
        repository.streams.put(Parts(1, b"", [1], [one, two]), known={one: 3})
    assert looked == [two]


def test_a_ref_in_more_directories_than_a_listing_goes_into_is_refused(repository: Repository) -> None:
    stored = repository.streams.put(Parts(1, b"x", [-1]))
    deepest = "/".join(["d"] * 65)
    repository.publish(
        Publication(streams=[StreamName("one", stored.id)], refs=[RefUpdate(deepest, "one", "path")]),
    )
    with pytest.raises(UsageError, match="a ref is in more than 64 directories: e/d/d"):
        repository.publish(
            Publication(streams=[StreamName("two", stored.id)], refs=[RefUpdate("e/" + deepest, "two", "path")])
        )
    assert [name for name, *_ in repository.streams.list()] == ["one"]
    assert len(repository.refs.list(odd=pytest.fail)) == 1


def test_a_ref_removed_while_its_durability_is_waited_for(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the lock nothing is made: whoever removes a ref removes its directories too."""
    one = stream(repository)
    publication = Publication(streams=[StreamName("a", one)], refs=[RefUpdate("d/e/x", "a", "path")])
    repository.publish(publication)
    real = publish.sync_directory

    def late(fd: int) -> None:
        monkeypatch.setattr(publish, "sync_directory", real)
        repository.publish(Publication(remove_refs=[RefRemoval("d/e/x", "path")]))
        assert not (repository.path / "streams/refs/d").exists()

    def make(parts: list[str], at: int, where: str) -> int:
        fd = os.open(repository.path / "streams", os.O_RDONLY)
        is_free = try_lock(fd, exclusive=True)
        os.close(fd)
        assert not is_free
        return make_directories(parts, at, where)

    monkeypatch.setattr(publish, "sync_directory", late)
    monkeypatch.setattr(publish, "make_directories", make)
    repository.publish(publication)
    assert repository.refs.read("d/e/x", "path") == "a"
