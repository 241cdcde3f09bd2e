"""Refs and the names of streams and images: what is listed, followed and refused."""

import os
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import SHA256
from composefs.errors import CorruptError, FormatError, NotFoundError
from composefs.repository import Repository, links
from composefs.repository.lookup import find
from composefs.repository.names import check_stream_name, decode_flat, ref_parts
from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream import Parts
from support.nested import nest


@pytest.fixture
def repository(tmp_path: Path):
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    with Repository.open(tmp_path / "repo", writable=True) as repository:
        yield repository


@pytest.fixture
def stream(repository: Repository) -> str:
    """The id of a stream with names of every kind."""
    stored = repository.streams.put(Parts(7, b"abc", [-3]))
    image = repository.images.put([b"not really an image"])
    repository.publish(
        Publication(
            streams=[StreamName("one", stored.id), StreamName("two", stored.id)],
            images=[ImageName(image.id, "team/50%off"), ImageName(image.id, "top")],
            refs=[
                RefUpdate("ostree/team/50%off", "one", "flat"),
                RefUpdate("ostree/plain", "two", "flat"),
                RefUpdate("other/a/b", "one", "path"),
                RefUpdate("other/a/c", "two", "path"),
                RefUpdate("alone", "two", "path"),
            ],
        )
    )
    return stored.id


@pytest.mark.usefixtures("stream")
def test_refs_are_read_and_listed_in_their_encoding(repository: Repository) -> None:
    assert (repository.path / "streams/refs/ostree/team%2F50%25off").readlink() == Path("../../one")
    assert (repository.path / "streams/refs/other/a/b").readlink() == Path("../../../one")
    assert repository.refs.read("ostree/team/50%off", "flat") == "one"
    assert repository.refs.read("ostree/team/50%off", "path") is None
    assert repository.refs.read("other/a/b", "path") == "one"
    assert repository.refs.read("nothing/a/b", "path") is None
    assert repository.refs.list("ostree/", "flat", odd=pytest.fail) == [
        ("ostree/plain", "two"),
        ("ostree/team/50%off", "one"),
    ]
    assert repository.refs.list("other/", odd=pytest.fail) == [("other/a/b", "one"), ("other/a/c", "two")]
    assert repository.refs.list("other/a/", odd=pytest.fail) == [("other/a/b", "one"), ("other/a/c", "two")]
    assert repository.refs.list("nothing", odd=pytest.fail) == []
    everything = {"alone", "ostree/plain", "ostree/team%2F50%25off", "other/a/b", "other/a/c"}
    assert {name for name, _ in repository.refs.list(odd=pytest.fail)} == everything


def test_streams_are_listed_and_found_by_name(repository: Repository, stream: str) -> None:
    assert repository.streams.list() == [("one", stream), ("two", stream)]
    assert repository.streams.list("t") == [("two", stream)]
    assert repository.streams.list(content_type=7) == [("one", stream), ("two", stream)]
    assert repository.streams.list(content_type=8) == []
    with repository.streams.open(repository.streams.resolve("one")) as reader:
        assert list(reader.chunks()) == [(-3, b"abc")]
        assert reader.content_type == 7


@pytest.mark.usefixtures("stream")
def test_a_stream_that_is_not_there(repository: Repository) -> None:
    with pytest.raises(NotFoundError, match="three"):
        repository.streams.resolve("three")


NEVER = ["", ".", "..", "a\0b", ".symlink-x", "\udc80", "a" * 256]
ONLY_FLAT = ["/a", "a/", "a//b", "a/../b", "../a", "a/.", "a/.symlink-x", "docker://host/image:1"]


@pytest.mark.parametrize(
    ("encoding", "name"), [*(("flat", name) for name in NEVER), *(("path", name) for name in [*NEVER, *ONLY_FLAT])]
)
def test_names_of_refs_that_are_refused(repository: Repository, name: str, encoding: str) -> None:
    with pytest.raises(FormatError, match=r"the (name|ref) "):
        ref_parts(f"ostree/{name}" if encoding == "flat" else name, encoding)
    with pytest.raises(FormatError):
        repository.refs.read(f"ostree/{name}", encoding)


@pytest.mark.parametrize("name", ONLY_FLAT)
def test_flat_names_are_one_file_name(name: str) -> None:
    directory, file_name = ref_parts(f"oci/{name}", "flat")
    assert (directory, decode_flat(file_name)) == ("oci", name)
    assert "/" not in file_name


@pytest.mark.parametrize(
    ("name", "encoding", "message"),
    [
        ("x", "flat", "flat refs are DIR/NAME"),
        ("ostree/" + "%" * 100, "flat", "a part of 300 bytes, encoded"),
        ("a/" * 1100 + "a", "path", "longer than 2048 bytes"),
    ],
    ids=["no directory", "encoded", "long"],
)
def test_names_that_do_not_fit(name: str, encoding: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        ref_parts(name, encoding)


def test_names_that_just_fit() -> None:
    assert ref_parts("ostree/" + "%" * 85, "flat") == ["ostree", "%25" * 85]
    path = "a/" * 896 + "n" * 255
    assert len(path) + 1 == 2048
    assert "/".join(ref_parts("x" + path, "path")) == "x" + path
    with pytest.raises(FormatError, match="longer than 2048 bytes"):
        ref_parts("xx" + path, "path")


@pytest.mark.parametrize("name", ["", ".", "..", "refs", "a/b", "a\0", ".symlink-x", "a" * 256, "\udc80"])
def test_names_of_streams_that_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        check_stream_name(name)


@pytest.mark.parametrize(
    "target",
    [
        "/etc/passwd",
        "../objects/../../etc/passwd",
        "../../objects/aa/" + "b" * 62,
        "../objects/aa/short",
        "one",
        "../meta.json",
    ],
)
def test_a_stream_that_points_elsewhere_is_not_followed(repository: Repository, target: str) -> None:
    (repository.path / "streams/bad").symlink_to(target)
    for look in (lambda: repository.streams.resolve("bad"), repository.streams.list):
        with pytest.raises(CorruptError, match="streams/bad"):
            look()


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../one", "../../../one", "../../one/x", "../../..", "../../refs", "../../"]
)
@pytest.mark.usefixtures("stream")
def test_a_ref_that_points_elsewhere_is_not_followed(repository: Repository, target: str) -> None:
    (repository.path / "streams/refs/ostree/bad").symlink_to(target)
    (repository.path / "images/refs/team/bad").symlink_to(target)
    for look in (
        lambda: repository.refs.read("ostree/bad", "flat"),
        lambda: repository.images.read_ref("team/bad"),
        lambda: find(repository, "ostree/bad", ("image", "stream")),
        lambda: find(repository, "team/bad", ("stream", "image")),
    ):
        with pytest.raises(CorruptError, match=r"refs/(ostree|team)/bad"):
            look()
    for listing in (repository.refs.list, repository.images.list_refs):
        with pytest.raises(pytest.fail.Exception, match=r"refs/(ostree|team)/bad"):
            listing(odd=pytest.fail)


@pytest.mark.usefixtures("stream")
def test_directories_of_refs_are_not_followed_through_symlinks(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/evil").symlink_to("../../one")
    (repository.path / "streams/refs/out").symlink_to(tmp_path / "outside")
    assert repository.refs.read("out/evil", "path") is None
    with pytest.raises(pytest.fail.Exception, match="streams/refs/out"):
        repository.refs.list(odd=pytest.fail)


@pytest.mark.usefixtures("stream")
def test_what_is_no_symlink(repository: Repository) -> None:
    (repository.path / "streams/file").touch()
    (repository.path / "streams/refs/ostree/file").touch()
    (repository.path / "images/refs/file").touch()
    for look in (
        repository.streams.list,
        lambda: repository.streams.resolve("file"),
        lambda: repository.refs.read("ostree/file", "flat"),
        lambda: repository.images.read_ref("file"),
    ):
        with pytest.raises(CorruptError, match="file is not a symlink"):
            look()
    for look in (repository.refs.list, repository.images.list_refs):
        with pytest.raises(pytest.fail.Exception, match=r"refs/.*file is not a symlink"):
            look(odd=pytest.fail)


@pytest.mark.parametrize(
    ("prefix", "opened"),
    [
        ("", ["", "ostree", "other", "other/a"]),
        ("al", [""]),
        ("o", ["", "ostree", "other", "other/a"]),
        ("other", ["", "other", "other/a"]),
        ("other/", ["", "other", "other/a"]),
        ("other/b", ["", "other"]),
        ("other/a/b", ["", "other", "other/a"]),
        ("other/a/b/c", ["", "other", "other/a"]),
    ],
)
@pytest.mark.usefixtures("stream")
def test_no_directory_is_opened_in_which_no_name_can_begin_so(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, prefix: str, opened: list[str]
) -> None:
    """Others may have thousands of directories there, and whoever completes a word waits."""
    seen = []
    real = links.open_directories
    monkeypatch.setattr(links, "open_directories", lambda parts, at: seen.append("/".join(parts)) or real(parts, at))
    found = repository.refs.list(prefix, odd=pytest.fail)
    assert seen == ["", *opened]  # that of all refs, then the walk
    assert all(name.startswith(prefix) for name, _ in found)


@pytest.mark.usefixtures("stream")
def test_symlinks_being_written_are_not_listed(repository: Repository) -> None:
    for directory in ("streams", "streams/refs/ostree", "images/refs"):
        (repository.path / directory / ".symlink-abc").symlink_to("../x")
    assert len(repository.streams.list()) == 2
    assert len(repository.refs.list(odd=pytest.fail)) == 5
    assert len(repository.images.list_refs(odd=pytest.fail)) == 2


@pytest.mark.parametrize("after", [None, "../../one", "d"])
@pytest.mark.usefixtures("stream")
def test_what_changes_between_two_looks_is_listed_as_it_is_then(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, after: str | None
) -> None:
    """A directory of refs makes way for nothing or for a ref, or stays."""
    looked_at = repository.path / "streams/refs/other/a"
    status = os.stat

    def late(path: Any, **options: Any) -> os.stat_result:
        if path == "a" and looked_at.is_dir() and after != "d":
            for name in os.listdir(looked_at):
                (looked_at / name).unlink()
            looked_at.rmdir()
            if after is not None:
                looked_at.symlink_to(after)
        return status(path, **options)

    monkeypatch.setattr(os, "stat", late)
    expected = {None: [], "../../one": [("other/a", "one")], "d": [("other/a/b", "one"), ("other/a/c", "two")]}
    assert repository.refs.list("other/", odd=pytest.fail) == expected[after]


@pytest.mark.usefixtures("stream")
def test_a_name_that_the_encoding_cannot_have_made(repository: Repository) -> None:
    (repository.path / "streams/refs/ostree/50%off").symlink_to("../../one")
    with pytest.raises(pytest.fail.Exception, match="50%off"):
        repository.refs.list("ostree/", "flat", odd=pytest.fail)


@pytest.mark.usefixtures("stream")
def test_refs_nested_too_deep(repository: Repository) -> None:
    nest(repository.path / "streams/refs", 100)
    with pytest.raises(pytest.fail.Exception, match="d is below 64 directories"):
        repository.refs.list(odd=pytest.fail)


def test_cat_checks_the_objects(repository: Repository) -> None:
    content = os.urandom(500_000)
    stored = repository.objects.store_parts([content])
    stream = repository.streams.put(Parts(1, b"abcdef", [-3, 0, -3, 0], [stored.id]))
    seen: list[bytes] = []
    with repository.streams.open(stream.id) as reader:
        assert repository.streams.cat(reader, lambda piece: seen.append(bytes(piece))) == 6 + 1_000_000
    assert b"".join(seen) == b"abc" + content + b"def" + content
    path = repository.objects.path(stored.id)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"X")
    with repository.streams.open(stream.id) as reader, pytest.raises(CorruptError, match=stored.id) as caught:
        repository.streams.cat(reader, len)
    with pytest.raises(CorruptError) as opening:
        repository.objects.open(stored.id, verify=True)
    assert (caught.value.message, caught.value.hint) == (opening.value.message, opening.value.hint)
    repository.objects.path(stored.id).write_bytes(content[:-1])
    with repository.streams.open(stream.id) as reader, pytest.raises(CorruptError):
        repository.streams.cat(reader, len)


def test_cat_checks_the_size(repository: Repository) -> None:
    stored = repository.objects.store_parts([b"12345"])
    stream = repository.streams.put(Parts(1, chunks=[0], object_refs=[stored.id]))
    data = bytearray(repository.objects.path(stream.id).read_bytes())
    data[32 + 72] += 1
    wrong = repository.objects.store_parts([data])
    with repository.streams.open(wrong.id) as reader, pytest.raises(CorruptError, match="its size says 6"):
        repository.streams.cat(reader, len)


def test_a_damaged_splitstream_is_not_read(repository: Repository) -> None:
    stream = repository.streams.put(Parts(1, b"abc", [-3]))
    path = repository.objects.path(stream.id)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"X")
    with pytest.raises(CorruptError, match="is damaged"):
        repository.streams.open(stream.id)
