"""What a name means: of images and streams, by themselves, their refs, and the paths of these."""

from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.errors import FormatError, NotFoundError
from composefs.repository import Repository
from composefs.repository.lookup import Kind, find
from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream import Parts

EITHER: tuple[Kind, ...] = ("image", "stream")


@pytest.fixture
def repository(tmp_path: Path):
    """The image ``top`` and the stream ``one``, which both are called ``both`` and ``ostree/both`` too."""
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / "repo", writable=True) as repository:
        stream = repository.streams.put(Parts(7, b"abc", [-3])).id
        image = repository.images.put([b"not really an image"]).id
        repository.publish(
            Publication(
                streams=[StreamName(name, stream) for name in ("one", "both", image)],
                images=[ImageName(image, name) for name in ("top", "team/50%off", "both", "ostree/both")],
                refs=[
                    RefUpdate("ostree/team/50%off", "one", "flat"),
                    RefUpdate("ostree/team%2F50%25off", "both", "flat"),
                    RefUpdate("ostree/both", "one", "flat"),
                    RefUpdate("oci/docker://host/app:1", "one", "flat"),
                    RefUpdate("git/a/b", "one", "flat"),
                    RefUpdate("other/a/b", "one", "path"),
                    RefUpdate("alone", "one", "path"),
                ],
            )
        )
        yield repository


def image_of(repository: Repository) -> str:
    return repository.images.list_refs(odd=pytest.fail)[0][1]


@pytest.mark.parametrize("text", ["top", "refs/top", "images/refs/top", "team/50%off", "refs/team/50%off"])
@pytest.mark.parametrize("kinds", [("image",), EITHER, ("stream", "image")])
def test_an_image_by_its_ref(repository: Repository, text: str, kinds: tuple[Kind, ...]) -> None:
    image = image_of(repository)
    path = text.removeprefix("images/").removeprefix("refs/")
    assert find(repository, text, kinds) == ("image", image, image, path)


@pytest.mark.parametrize(
    ("text", "name", "ref"),
    [
        ("one", "one", None),
        ("ostree/team/50%off", "one", "ostree/team%2F50%25off"),
        ("refs/ostree/team%2F50%25off", "one", "ostree/team%2F50%25off"),
        ("streams/refs/ostree/team%2F50%25off", "one", "ostree/team%2F50%25off"),
        ("ostree/team%2F50%25off", "both", "ostree/team%252F50%2525off"),
        ("oci/docker://host/app:1", "one", "oci/docker:%2F%2Fhost%2Fapp:1"),
        ("git/a%2Fb", "one", "git/a%2Fb"),
        ("git/a/b", "one", "git/a%2Fb"),
        ("other/a/b", "one", "other/a/b"),
        ("refs/other/a/b", "one", "other/a/b"),
        ("alone", "one", "alone"),
    ],
)
def test_a_stream_by_its_name_and_refs(repository: Repository, text: str, name: str, ref: str | None) -> None:
    for kinds in (("stream",), EITHER, ("stream", "image")):
        assert find(repository, text, kinds) == ("stream", name, repository.streams.resolve(name), ref)


def test_of_two_the_first_kind_is_meant(repository: Repository) -> None:
    image = image_of(repository)
    for text in ("both", "refs/ostree/both", image):
        assert find(repository, text, EITHER).kind == "image"
        assert find(repository, text, ("stream", "image")).kind == "stream"
    assert find(repository, "images/refs/both", ("stream", "image")).kind == "image"
    assert find(repository, "streams/refs/ostree/both", EITHER).kind == "stream"


@pytest.mark.parametrize("text", ["none", "refs/none", "refs/one", "00" * 32, "refs/top/x", "alone/x", "ostree/team"])
def test_what_is_not_there(repository: Repository, text: str) -> None:
    with pytest.raises(NotFoundError, match=f"there is no image or stream '{text}'"):
        find(repository, text, EITHER)


@pytest.mark.parametrize("text", ["", "..", "/top", "top/", "refs/../top", "a\0b", "\udc80", "x" * 300])
def test_what_can_be_no_name(repository: Repository, text: str) -> None:
    with pytest.raises(FormatError, match="the name "):
        find(repository, text, EITHER)


def test_refs_that_lead_nowhere(repository: Repository) -> None:
    image = image_of(repository)
    (repository.path / "images" / image).unlink()
    with pytest.raises(NotFoundError, match=f"there is no image {image}"):
        find(repository, "top", EITHER)
    (repository.path / "streams/one").unlink()
    with pytest.raises(NotFoundError, match="there is no stream 'one'"):
        find(repository, "alone", ("stream", "image"))
