"""Garbage collection keeps exactly what refs lead to, and deletes nothing when it cannot follow one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from composefs.digest import SHA256, SHA512
from composefs.errors import BusyError, CorruptError, NotFoundError, ReadOnlyError
from composefs.gc import Collected, collect
from composefs.repository import Repository
from composefs.repository.publication import Publication, RefRemoval, RefUpdate, StreamName
from composefs.splitstream import Parts
from support.populated import CONTENT_TYPE, Populated, populate
from support.splitstreams import stream_of


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


def run(made: Populated, *roots: str, dry_run: bool = False) -> Collected:
    with Repository.open(made.path, writable=not dry_run, exclusive=True) as repository:
        return collect(repository, roots, dry_run=dry_run)


def unref(made: Populated) -> None:
    with Repository.open(made.path, writable=True) as repository:
        repository.publish(Publication(remove_refs=[RefRemoval("oci/team/app:1", "flat")], remove_image_refs=["os/1"]))


@pytest.mark.parametrize("algorithm", [SHA256, SHA512], ids=str)
def test_what_refs_lead_to_is_kept(tmp_path: Path, algorithm) -> None:
    made = populate(tmp_path / "repo", algorithm)
    size = made.object(made.garbage).stat().st_size + made.object(made.old).stat().st_size
    assert run(made) == Collected(objects=2, size=size, images=0, streams=1)
    assert made.ids() == made.live
    assert not os.path.lexists(made.path / "streams/old")
    assert run(made) == Collected()


def test_a_dry_run_says_the_same_and_changes_nothing(made: Populated) -> None:
    before = sorted(made.path.rglob("*"))
    said = run(made, dry_run=True)
    assert sorted(made.path.rglob("*")) == before
    assert run(made) == said


def test_without_refs_nothing_is_left(made: Populated) -> None:
    unref(made)
    count = len(made.ids())
    collected = run(made)
    assert (collected.objects, collected.images, collected.streams) == (count, 2, 2)
    assert made.ids() == set()
    assert os.listdir(made.path / "images") == ["refs"]


def test_roots_are_kept(made: Populated) -> None:
    unref(made)
    run(made, "old", made.alone)
    assert made.ids() == {made.old, made.alone, made.files["one"], made.files["two"]}
    assert run(made, "old").images == 1
    assert made.ids() == {made.old}


def test_a_root_by_its_ref(made: Populated) -> None:
    for spelling in ("refs/oci/team%2Fapp:1", "refs/oci/team/app:1", "oci/team/app:1", "os/1"):
        assert run(made, spelling, dry_run=True).objects == 2


def test_an_unknown_root_stops_everything(made: Populated) -> None:
    before = made.ids()
    with pytest.raises(NotFoundError, match="'nothing'"):
        run(made, "old", "nothing")
    assert made.ids() == before


def test_a_stream_is_followed_when_its_name_has_moved_on(made: Populated) -> None:
    """composefs-rs follows an id only if a name in streams/ points to it at this moment."""
    with Repository.open(made.path, writable=True) as repository:
        config = repository.streams.put(Parts(CONTENT_TYPE, b"config", [-6], named_refs=[("layer", made.layer)])).id
        manifest = repository.streams.put(Parts(CONTENT_TYPE, b"m", [-1], named_refs=[("config", config)])).id
        other = repository.streams.put(Parts(CONTENT_TYPE, b"other", [-5])).id
        streams = [StreamName("config", config), StreamName("manifest", manifest)]
        refs = [RefUpdate("oci/m", "manifest", "flat")]
        repository.publish(Publication(streams=streams, refs=refs))
        repository.publish(Publication(streams=[StreamName("config", other, if_exists="replace")]))
        repository.publish(Publication(remove_refs=[RefRemoval("oci/team/app:1", "flat")]))
    run(made)
    assert {config, manifest, made.layer, made.files["three"]} <= made.ids()
    assert other not in made.ids()


def damage_stream(made: Populated) -> str:
    path = made.object(made.layer)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])
    return f"streams/refs/oci/team%2Fapp:1 → layer:1: object {made.layer} is damaged"


def lose_stream(made: Populated) -> str:
    made.object(made.layer).unlink()
    return f"streams/refs/oci/team%2Fapp:1 → layer:1: .*lacks object {made.layer}"


def lose_image(made: Populated) -> str:
    made.object(made.inner).unlink()
    return f"→ composefs.image: .*lacks object {made.inner}"


def damage_image(made: Populated) -> str:
    path = made.object(made.alone)
    path.chmod(0o644)
    path.write_bytes(bytes(8192))
    return f"images/refs/os/1: object {made.alone} is damaged"


def lose_the_end_of_a_history(made: Populated) -> str:
    """What leads to it is not told whole, which would take memory with the square of its length."""
    older = made.layer
    with Repository.open(made.path, writable=True) as repository:
        for _ in range(100):
            older = repository.streams.put(Parts(CONTENT_TYPE, named_refs=[("parent", older)])).id
        streams, refs = [StreamName("newest", older)], [RefUpdate("ostree/os", "newest", "flat")]
        repository.publish(Publication(streams=streams, refs=refs))
        repository.publish(Publication(remove_refs=[RefRemoval("oci/team/app:1", "flat")]))
    made.object(made.layer).unlink()
    return f"told: streams/refs/ostree/os → … → parent → parent: .*lacks object {made.layer}"


def break_stream_ref(made: Populated) -> str:
    (made.path / "streams/top").unlink()
    return "streams/refs/oci/team%2Fapp:1: there is no streams/top"


def break_image_ref(made: Populated) -> str:
    (made.path / "images/refs/os/2").symlink_to(f"../../{'0' * 64}")
    return f"images/refs/os/2: there is no images/{'0' * 64}"


def lead_elsewhere(made: Populated) -> str:
    (made.path / "streams/refs/oci/x").symlink_to("/etc/passwd")
    return "streams/refs/oci/x .*no ref's target"


def name_no_stream(made: Populated) -> str:
    (made.path / "streams/blob").symlink_to(f"../objects/{made.blob[:2]}/{made.blob[2:]}")
    (made.path / "streams/refs/oci/x").symlink_to("../../blob")
    return "streams/refs/oci/x: it is not a splitstream"


def put_file_among_refs(made: Populated) -> str:
    (made.path / "streams/refs/oci/x").write_text("")
    return "streams/refs/oci/x: it is not a symlink"


def put_file_among_streams(made: Populated) -> str:
    (made.path / "streams/x").write_text("")
    return "streams/x: it is not a symlink"


def put_file_among_images(made: Populated) -> str:
    (made.path / "images/x").write_text("")
    return "images/x: it is not a symlink"


def swap_image(made: Populated) -> str:
    link = made.path / "images" / made.inner
    link.unlink()
    link.symlink_to(f"../objects/{made.alone[:2]}/{made.alone[2:]}")
    return f"images/{made.inner}: it points to another object"


@pytest.mark.parametrize(
    "spoil",
    [
        damage_stream,
        lose_stream,
        lose_the_end_of_a_history,
        lose_image,
        damage_image,
        break_stream_ref,
        break_image_ref,
        lead_elsewhere,
        name_no_stream,
        put_file_among_refs,
        put_file_among_streams,
        put_file_among_images,
        swap_image,
    ],
)
def test_nothing_is_deleted_when_something_cannot_be_followed(made: Populated, spoil) -> None:
    message = spoil(made)
    before = sorted(made.path.rglob("*"))
    with pytest.raises(CorruptError, match=message) as caught:
        run(made)
    assert caught.value.message.startswith("nothing was deleted")
    assert sorted(made.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("count", "more"), [(1, ""), (3, ""), (4, "; and 1 more, which -v lists"), (5, "; and 2 more")]
)
def test_the_first_problems_are_told(made: Populated, count: int, more: str) -> None:
    for number in range(count):
        (made.path / f"streams/x{number}").write_text("")
    with pytest.raises(CorruptError) as caught:
        run(made)
    told = [f"streams/x{number}: it is not a symlink" for number in range(count)]
    assert caught.value.message.partition(" cannot be told: ")[2].startswith("; ".join(told[:3]) + more)
    assert (" more" in caught.value.message) == bool(more)
    assert list(caught.value.causes) == told[3:]


def test_a_lost_file_stops_nothing(made: Populated) -> None:
    """What is missing but refers to nothing else cannot hide anything that is kept."""
    made.object(made.files["four"]).unlink()
    assert run(made).objects == 2


def test_odd_files_among_the_objects_are_told_and_left(made: Populated) -> None:
    odd = ["objects/README", "objects/00/x", f"objects/zz/{'0' * 62}", f"objects/01/{'0' * 61}"]
    for name in odd:
        (made.path / name).parent.mkdir(exist_ok=True)
        (made.path / name).write_text("")
    directory = f"objects/02/{'0' * 62}"
    (made.path / directory).mkdir(parents=True, exist_ok=True)
    collected = run(made)
    assert collected.objects == 2
    assert all(any(name.rpartition("/")[0] in line for line in collected.odd) for name in odd)
    assert any(directory in line for line in collected.odd)
    assert all((made.path / name).exists() for name in [*odd, directory])


def test_names_that_a_publisher_left_unfinished_go(made: Populated) -> None:
    left = [
        made.path / "streams/.symlink-1",
        made.path / "streams/refs/oci/.symlink-2",
        made.path / "images/.symlink-3",
    ]
    for path in left:
        path.symlink_to("../x")
    assert run(made).streams == 1
    assert not any(map(os.path.lexists, left))
    run(made, dry_run=True)


def test_dangling_names_that_no_ref_needs_are_pruned(made: Populated) -> None:
    made.object(made.old).unlink()
    assert run(made).streams == 1


def test_nobody_else_may_use_the_repository(made: Populated) -> None:
    with Repository.open(made.path), pytest.raises(BusyError) as caught:
        run(made)
    assert "--wait" in (caught.value.hint or "")
    with Repository.open(made.path, exclusive=True), pytest.raises(BusyError):
        Repository.open(made.path)


def test_only_a_dry_run_does_without_writing(made: Populated) -> None:
    with Repository.open(made.path, exclusive=True) as repository:
        with pytest.raises(ReadOnlyError):
            collect(repository)
        assert collect(repository, dry_run=True).objects == 2


def test_an_empty_repository(tmp_path: Path) -> None:
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    for name in ("objects", "streams", "images"):
        shutil.rmtree(tmp_path / "repo" / name)
    with Repository.open(tmp_path / "repo", exclusive=True) as repository:
        assert collect(repository, dry_run=True) == Collected()
    with Repository.open(tmp_path / "repo", writable=True, exclusive=True) as repository:
        assert collect(repository) == Collected()


def test_a_loop_of_streams_is_followed_once(made: Populated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digests make a loop impossible to find, not impossible to claim: say that two streams name each other."""
    from composefs.graph import Graph, Start
    from composefs.splitstream import Reader

    ids = {name: name * 64 for name in "abc"}
    streams = {
        ids["a"]: stream_of(SHA256, content_type=0, named_refs=[("x", ids["b"])]),
        ids["b"]: stream_of(SHA256, content_type=0, named_refs=[("x", ids["a"])], object_refs=[ids["c"]]),
    }
    monkeypatch.setattr(Graph, "open_stream", lambda _self, object_id: Reader(streams[object_id], SHA256))
    with Repository.open(made.path) as repository:
        graph = Graph(repository)
        assert {each.hex() for each in graph.reach([Start(ids["a"], "stream", "a")])} == set(ids.values())
