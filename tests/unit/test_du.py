"""du: what a ref holds, and what would be garbage without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.errors import MissingObjectError, NotFoundError
from composefs.gc import collect
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, RefRemoval, RefUpdate
from composefs.usage import Usage, measure
from support.populated import Populated, make_image, populate


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


def run(made: Populated, *wanted: str) -> Usage:
    with Repository.open(made.path) as repository:
        return measure(repository, wanted)


def size(made: Populated, *ids: str) -> int:
    return sum(made.object(each).stat().st_size for each in ids)


def test_every_ref(made: Populated) -> None:
    usage = run(made)
    stream, image = usage.holdings
    behind = (made.top, made.layer, made.blob, made.inner, made.files["three"], made.files["four"])
    assert (stream.kind, stream.name, stream.id) == ("stream", "streams/refs/oci/team%2Fapp:1", made.top)
    assert (stream.objects, stream.size) == (stream.alone_objects, stream.alone_size) == (6, size(made, *behind))
    assert (image.kind, image.name, image.id) == ("image", "images/refs/os/1", made.alone)
    assert (usage.objects, usage.size) == (9, stream.size + image.size)
    assert (usage.garbage_objects, usage.garbage_size) == (2, size(made, made.garbage, made.old))


def test_what_is_shared(made: Populated) -> None:
    with Repository.open(made.path, writable=True) as repository:
        # "one" is in the image os/1 too.
        image, _ = make_image(repository, b"one" * 100, b"five" * 100)
        repository.publish(Publication(images=[ImageName(image, "os/2")], refs=[RefUpdate("oci/again", "top", "flat")]))
    holdings = {holding.name: holding for holding in run(made).holdings}
    assert holdings["images/refs/os/2"].alone_objects == 2
    assert holdings["images/refs/os/1"].alone_size == size(made, made.alone, made.files["two"])
    assert holdings["streams/refs/oci/again"].alone_objects == 0, "the other ref keeps all of it"


def test_what_a_ref_holds_alone_is_what_collection_frees(made: Populated) -> None:
    with Repository.open(made.path, writable=True, exclusive=True) as repository:
        collect(repository)
        [stream] = measure(repository, ["oci/team/app:1"]).holdings
        repository.publish(Publication(remove_refs=[RefRemoval("oci/team/app:1", "flat")]))
        collected = collect(repository)
    assert (collected.objects, collected.size) == (stream.alone_objects, stream.alone_size)


def test_the_ones_asked_for(made: Populated) -> None:
    names = ["os/1", "old", made.inner, "refs/os/1"]
    holdings = run(made, *names).holdings
    assert [holding.name for holding in holdings] == ["images/refs/os/1", "old", made.inner, "images/refs/os/1"]
    assert holdings[1].alone_objects == 1, "no ref holds it"
    assert holdings[2].alone_objects == 0, "the stream's ref holds it too"
    with pytest.raises(NotFoundError):
        run(made, "none")


def test_a_stream_that_is_lost_is_no_guess(made: Populated) -> None:
    made.object(made.layer).unlink()
    with pytest.raises(MissingObjectError, match=made.layer):
        run(made)


def test_an_empty_repository(tmp_path: Path) -> None:
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / "repo") as repository:
        assert measure(repository) == Usage([], 0, 0, 0, 0)
