"""An image that has its digest and is malformed all the same: every command says which image it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.repository import ImageName, Publication, Repository
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
    message = "malformed image: the file b'f0' has a path that is not its digest's"
    assert f"fsck: image-invalid: images/{bad}: {message}" in cfsctl("--repo", path, "fsck", status=1).stdout
    Repository.init(tmp_path / "other", algorithm=SHA256, insecure=True)
    said = the_error("--repo", tmp_path / "other", "copy", "--from", path, "bad", status=5)
    assert said.startswith(f"cfsctl: {bad} in {path}: {message}")
    cfsctl("--repo", path, "gc")
    with Repository.open(path) as opened:
        assert not opened.objects.missing([mine, other, bad])
