"""An image that has its digest and is malformed all the same: every command says which image it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication
from support.commands import cfsctl, the_error
from support.populated import make_image


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Make a repository with one image, ``bad``, in which the file /f0 has a slash in its name; return its id too."""
    path = tmp_path_factory.mktemp("malformed") / "repo"
    Repository.init(path, algorithm=SHA256, insecure=True)
    with Repository.open(path, writable=True) as opened:
        good, _ = make_image(opened, b"x" * 100)
        data = opened.objects.path(good).read_bytes()
        assert data.count(b"f0") == 1
        bad = opened.images.put([data.replace(b"f0", b"/0")]).id
        opened.publish(Publication(images=[ImageName(bad, "bad")]))
    return path, bad


@pytest.mark.parametrize(
    "command",
    [
        ("ls", "bad"),
        ("dump-files", "bad", "/f0"),
        ("image-objects", "bad"),
        ("diff", "bad", "bad"),
    ],
    ids=lambda command: command[0],
)
def test_reading_it(repository: tuple[Path, str], command: tuple[str, ...]) -> None:
    path, bad = repository
    assert the_error("--repo", path, *command, status=5).startswith(
        f"cfsctl: image {bad} in {path}: malformed image: a file name"
    )


def test_following_it(repository: tuple[Path, str]) -> None:
    path, bad = repository
    said = the_error("--repo", path, "gc", status=5)
    assert "images/refs/bad: malformed image: a file name" in said
    assert the_error("--repo", path, "du", status=5).startswith(
        f"cfsctl: images/refs/bad in {path}: malformed image: a file name"
    )
    done = cfsctl("--repo", path, "fsck", status=1)
    assert f"image-invalid: images/{bad}: malformed image: a file name" in done.stdout
    assert done.stderr == "", "no copy of it is any better"


def test_copying_it(repository: tuple[Path, str], tmp_path: Path) -> None:
    path, bad = repository
    Repository.init(tmp_path / "other", algorithm=SHA256, insecure=True)
    said = the_error("--repo", tmp_path / "other", "copy", "--from", path, "bad", status=5)
    assert said.startswith(f"cfsctl: {bad} in {path}: malformed image: a file name")


def test_a_file_that_leads_to_another_object_than_its_digest_says(tmp_path: Path) -> None:
    """It is told, and does not go to another repository; what it says it needs is kept, as anybody's is."""
    path = tmp_path / "repo"
    Repository.init(path, algorithm=SHA256, insecure=True)
    with Repository.open(path, writable=True) as opened:
        good, [mine, other] = make_image(opened, b"x" * 100, b"y" * 200)
        data = opened.objects.path(good).read_bytes()
        changed = data.replace(f"/{mine[:2]}/{mine[2:]}".encode(), f"/{other[:2]}/{other[2:]}".encode())
        bad = opened.images.put([changed]).id
        opened.publish(Publication(images=[ImageName(bad, "bad")]))
    message = "malformed image: the file 'f0' has a path that is not its digest's"
    assert f"fsck: image-invalid: images/{bad}: {message}" in cfsctl("--repo", path, "fsck", status=1).stdout
    Repository.init(tmp_path / "other", algorithm=SHA256, insecure=True)
    said = the_error("--repo", tmp_path / "other", "copy", "--from", path, "bad", status=5)
    assert said.startswith(f"cfsctl: {bad} in {path}: {message}")
    cfsctl("--repo", path, "gc")
    with Repository.open(path) as opened:
        opened.objects.require([mine, other, bad], "it")


def test_a_file_of_another_size_than_its_object(tmp_path: Path) -> None:
    """It is neither made of a dump nor imported, and fsck tells it, unless it is the object that is wrong."""
    path = tmp_path / "repo"
    Repository.init(path, algorithm=SHA256, insecure=True)
    with Repository.open(path, writable=True) as opened:
        good, [mine, other] = make_image(opened, b"x" * 100, b"y" * 200)
        opened.publish(Publication(images=[ImageName(good, "good")]))
        dump = cfsctl("--repo", path, "dump-files", "good", "/f0", "/f1").stdout
        text = "/ 0 40755 2 0 0 0 0.0 - - -\n" + dump.replace("/f0 100 ", "/f0 101 ")
        tree = dumpfile.parse(text.encode(), SHA256)
        bad = opened.images.put(erofs.write(tree, version=1)).id
        image = opened.objects.path(bad)
        told = f"says that a file has 101 bytes, and its object {mine} has 100 (`cfsctl fsck` tells if"
        assert f"the dump - {told}" in the_error(
            "--repo", path, "create-image", "--from-dump", "-", input=text, status=5
        )
        with image.open("rb") as file:
            assert told in the_error("--repo", path, "import-image", "bad", stdin=file, status=5)
        assert "status: ok" in cfsctl("--repo", path, "fsck").stdout
        opened.publish(Publication(images=[ImageName(bad, "bad")]))
    message = f"fsck: image-invalid: images/{bad}: a file has 101 bytes, and its object {mine} 100"
    for options in ((), ("--metadata-only",)):
        report = cfsctl("--repo", path, "fsck", *options, status=1).stdout
        assert [line for line in report.splitlines() if line.startswith("fsck: ")] == [message]
        assert "images: 1/2 ok" in report
    for each in (mine, other):
        damaged = path / "objects" / each[:2] / each[2:]
        damaged.chmod(0o644)
        damaged.write_bytes(damaged.read_bytes() + b"more")
    for options in ((), ("--metadata-only",)):
        report = cfsctl("--repo", path, "fsck", *options, status=1).stdout
        assert "image-invalid" not in report
        for each in (mine, other):
            assert f"object-digest-mismatch: objects/{each[:2]}/{each[2:]}" in report
