"""Refs that are none: each is told by name, and does not keep the others from being listed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.commands import cfsctl, completions
from support.ostree_pull import extensions  # noqa: F401  a fixture
from support.populated import Populated, populate


@pytest.fixture
def made(tmp_path: Path) -> Populated:
    made = populate(tmp_path / "repo")
    images, streams = made.path / "images/refs", made.path / "streams/refs"
    (images / "file").touch()
    (images / "short").symlink_to("../12345")
    (images / "os/elsewhere").symlink_to("/etc/passwd")
    (streams / "oci/50%off").symlink_to("../../top")
    (streams / "oci/fifo").mkdir()
    (streams / "oci/fifo/file").touch()
    (streams / "oci/up").symlink_to("../../../etc")
    return made


def left_out(stderr: str) -> list[str]:
    lines = stderr.splitlines()
    assert all(line.startswith("cfsctl: left out: ") for line in lines)
    return sorted(line.removeprefix("cfsctl: left out: ").split()[0].rstrip(":") for line in lines)


def test_images(made: Populated) -> None:
    listed = cfsctl("--repo", made.path, "images", "--json")
    assert json.loads(listed.stdout)["images"] == [{"name": "os/1", "digest": made.alone}]
    assert left_out(cfsctl("--repo", made.path, "images").stderr) == ["images/refs/file", "the", "the"]


def test_all_refs(made: Populated) -> None:
    listed = cfsctl("--repo", made.path, "ref", "list", "--json")
    assert [ref["name"] for ref in json.loads(listed.stdout)["refs"]] == ["os/1", "oci/team/app:1"]
    assert len(left_out(listed.stderr)) == 6
    assert completions("--repo", str(made.path), "ref", "remove", "") == ["oci/team/app:1", "os/1"]


@pytest.mark.parametrize(
    ("prefix", "named", "odd"),
    [
        ("oci/team/a", ["oci/team/app:1"], 0),
        ("oci/team/app:1/", [], 0),
        ("oci/", ["oci/team/app:1"], 3),
        ("os", ["os/1"], 1),
        ("o", ["os/1", "oci/team/app:1"], 4),
    ],
)
def test_refs_by_how_they_begin(made: Populated, prefix: str, named: list[str], odd: int) -> None:
    """What begins otherwise is not looked at: it may be a great many."""
    listed = cfsctl("--repo", made.path, "ref", "list", prefix, "--json")
    assert [ref["name"] for ref in json.loads(listed.stdout)["refs"]] == named
    assert len(left_out(listed.stderr)) == odd
    assert completions("--repo", str(made.path), "ref", "remove", prefix) == sorted(named)


def test_words_that_begin_with_refs_are_completed(made: Populated) -> None:
    def ends(word: str) -> list[str]:
        return completions("--repo", str(made.path), "cat", word)

    encoded = "refs/oci/team%2Fapp:1"
    assert ends("r") == ends("refs/") == ["refs/oci/50%off", encoded, "refs/os/1"]
    assert ends("refs/os/") == ["refs/os/1"]
    assert ends("refs/oci/team%") == [encoded]
    assert ends("oci/t") == ["oci/team/app:1"]


def test_removing_a_ref_by_its_file(made: Populated) -> None:
    """So fsck, gc and du call it."""
    stream, image = "streams/refs/oci/team%2Fapp:1", "images/refs/os/1"
    assert {stream, image} <= set(cfsctl("--repo", made.path, "du").stdout.split())
    cfsctl("--repo", made.path, "ref", "remove", stream)
    refused = cfsctl("--repo", made.path, "ref", "remove", image, status=3)
    assert f"(an image has that name: cfsctl ref remove --image {image})" in refused.stderr
    (made.path / "images/refs/os/a b").symlink_to((made.path / image).readlink())
    cfsctl("--repo", made.path, "ref", "remove", "--image", image)  # as it was told
    refused = cfsctl("--repo", made.path, "ref", "remove", "os/a b", status=3)
    assert "cfsctl ref remove --image 'os/a b')" in refused.stderr
    cfsctl("--repo", made.path, "ref", "remove", "--image", "os/a b")
    assert cfsctl("--repo", made.path, "ref", "list").stdout == "No refs found\n"


def test_removing_a_ref_whose_name_is_not_utf_8(made: Populated) -> None:
    streams, images = os.fsencode(made.path / "streams/refs"), os.fsencode(made.path / "images/refs")
    for name in (b"t\xffd", b"oci/b\xff%25"):
        os.symlink(b"../" * (1 + name.count(b"/")) + b"top", streams + b"/" + name)
    for name in (b"i\xffd", b"os/i\xffd"):
        os.symlink(b"../" * (1 + name.count(b"/")) + made.alone.encode(), images + b"/" + name)
    listed = json.loads(cfsctl("--repo", made.path, "ref", "list", "--json").stdout)["refs"]
    odd = [(ref["kind"] == "image", ref["name"]) for ref in listed if "\udcff" in ref["name"]]
    assert [name for _, name in odd] == ["i\udcffd", "os/i\udcffd", "oci/b\udcff%", "t\udcffd"]
    for is_image, name in odd:
        image = ["--image"] if is_image else []
        if is_image:
            told = cfsctl("--repo", made.path, "ref", "remove", name, status=3).stderr
            assert f"(an image has that name: cfsctl ref remove --image '{name}')" in told
        assert cfsctl("--repo", made.path, "ref", "remove", *image, name).stderr == ""
        told = cfsctl("--repo", made.path, "ref", "remove", *image, name, status=3).stderr
        assert told.startswith(f"cfsctl: there is no {'image ' * is_image}ref {name!r}")
    assert "\\udcff" not in cfsctl("--repo", made.path, "ref", "list", "--json").stdout


def test_a_ref_with_others_below_its_name(made: Populated, tmp_path: Path) -> None:
    """It is none, for who looks for it and for who would make it; once the others have gone it can be made."""
    (tmp_path / "tree/usr").mkdir(parents=True)
    create = ("--repo", made.path, "create-image", tmp_path / "tree")
    cfsctl(*create, "a/b/c")
    for name in ("a", "a/b"):
        told = cfsctl("--repo", made.path, "ls", f"refs/{name}", status=3).stderr
        assert told.startswith(f"cfsctl: there is no image or stream 'refs/{name}'")
        told = cfsctl(*create, name, status=4).stderr
        assert told == f"cfsctl: images/refs/{name} cannot be a ref: there are refs below it\n"
    told = cfsctl(*create, "a/b/c/d", status=4).stderr
    assert told == "cfsctl: images/refs/a/b/c: 'c' is a ref already, so nothing can be below it\n"
    cfsctl("--repo", made.path, "ref", "remove", "--image", "a/b/c")
    (made.path / "images/refs/a/b").mkdir(parents=True)  # what a killed command leaves
    cfsctl(*create, "a/b")
    assert cfsctl("--repo", made.path, "ls", "refs/a/b").stdout == "usr\n"


@pytest.mark.usefixtures("extensions")
def test_refs_that_an_extension_lists(made: Populated) -> None:
    ostree = made.path / "streams/refs/ostree"
    ostree.mkdir()
    (ostree / "file").touch()
    (ostree / "50%off").symlink_to("../../top")
    (ostree / "dangling").symlink_to("../../none")
    listed = cfsctl("--repo", made.path, "ostree", "images")
    assert listed.stdout == "No ostree commits found\n"
    for name in ("ostree/file is not a symlink", "50%off", "ostree/dangling: there is no stream 'none'"):
        assert f"left out: {'the ref ' if 'dangling' in name else ''}" in listed.stderr
        assert name in listed.stderr


def test_what_is_wrong_is_removed_as_it_is_listed(made: Populated) -> None:
    """gc does nothing while there is such a ref, and says how to remove it."""
    (made.path / "images/refs/file").unlink()
    (made.path / "streams/refs/oci/fifo/file").unlink()
    refused = cfsctl("--repo", made.path, "gc", status=5).stderr
    assert "images/refs/os/elsewhere" in refused
    assert "cfsctl ref remove [--image] NAME" in refused
    cfsctl("--repo", made.path, "ref", "remove", "--image", "os/elsewhere", "short")
    cfsctl("--repo", made.path, "ref", "remove", "oci/up")
    assert "removed" in cfsctl("--repo", made.path, "gc").stdout
    assert left_out(cfsctl("--repo", made.path, "ref", "list").stderr) == ["streams/refs/oci/50%off"]
    assert not (made.path / "images/refs/short").is_symlink()
    assert cfsctl("--repo", made.path, "fsck").stdout.endswith("status: ok\n")
