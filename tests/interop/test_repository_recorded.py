"""Repositories that composefs-rs 0.9.0 made open here, and what is in them is what it said."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import algorithm_named
from composefs.meta import Meta
from composefs.repository import Repository
from composefs.repository.lookup import find
from composefs.repository.publication import ANY, ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream import Reader
from support.recorded import RECORDED, answers, unpack
from support.splitstreams import stream_of

pytestmark = pytest.mark.vectors


@pytest.fixture(scope="module", params=RECORDED)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A recorded repository, not to be changed, and its answers."""
    return unpack(request.param, tmp_path_factory.mktemp(request.param)), answers(request.param)


@pytest.fixture
def repository(recorded: tuple[Path, dict[str, Any]]):
    with Repository.open(recorded[0]) as repository:
        yield repository


@pytest.fixture
def said(recorded: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    return recorded[1]


def commands(said: dict[str, Any], name: str) -> list[tuple[list[str], dict[str, Any]]]:
    found = [(row["argv"][1:], row) for row in said["commands"] if row["argv"][0] == name]
    assert found
    return found


def test_meta_json(repository: Repository, said: dict[str, Any]) -> None:
    data = (repository.path / "meta.json").read_bytes()
    assert repository.meta.serialize() == data
    assert json.loads(data) == said["meta.json"]
    assert repository.algorithm == algorithm_named(said["algorithm"])
    assert repository.meta.erofs_default == said["erofs_version"]
    assert Meta(repository.algorithm, said["erofs_version"]).serialize() == data
    assert not repository.secure


def test_every_object_has_its_digest(repository: Repository, said: dict[str, Any]) -> None:
    for object_id, facts in said["objects"].items():
        fd = repository.objects.open(object_id, verify=True)
        with os.fdopen(fd, "rb") as file:
            data = file.read()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (facts["size"], facts["sha256"])


def test_streams_and_their_targets(repository: Repository, said: dict[str, Any]) -> None:
    listed = {f"streams/{name}": f"../objects/{found[:2]}/{found[2:]}" for name, found in repository.streams.list()}
    assert listed == {name: to for name, to in said["streams"].items() if to != "/" and "/refs/" not in name}


def test_refs_are_decoded(repository: Repository, said: dict[str, Any]) -> None:
    refs = {name for name, to in said["streams"].items() if to != "/" and "/refs/" in name}
    assert {f"streams/refs/{name}" for name, _ in repository.refs.list(odd=pytest.fail)} == refs
    assert {"ostree/team/50%off", "ostree/vector/1"} < {
        name for name, _ in repository.refs.list("ostree/", "flat", odd=pytest.fail)
    }
    oci = dict(repository.refs.list("oci/", "flat", odd=pytest.fail))
    assert oci["oci/example.org/team/app:50%off"] == oci["oci/t1:1"]
    for name, target in oci.items():
        assert repository.refs.read(name, "flat") == target
        assert said["streams"][f"streams/refs/oci/{name[4:].replace('%', '%25').replace('/', '%2F')}"].endswith(target)


def test_image_refs(repository: Repository, said: dict[str, Any]) -> None:
    ((_, row),) = [found for found in commands(said, "images") if found[0] == ["--json"]]
    assert sorted(repository.images.list_refs(odd=pytest.fail)) == sorted(
        (ref["name"], ref["digest"]) for ref in row["json"]["images"]
    )
    for name, image_id in repository.images.list_refs(odd=pytest.fail):
        for text in (name, f"refs/{name}"):
            assert find(repository, text, ("image",)).id == image_id


def test_cat_of_every_stream(repository: Repository, said: dict[str, Any]) -> None:
    checked = 0
    for (name,), row in commands(said, "cat"):
        if row["rc"]:
            continue
        digest = hashlib.sha256()
        with repository.streams.open(find(repository, name, ("stream",)).id) as reader:
            size = repository.streams.cat(reader, digest.update)
            assert size == reader.size
        assert (size, digest.hexdigest()) == (row["size"], row["sha256"])
        checked += 1
    assert checked == 15


def test_streams_written_again_are_the_same_bytes(repository: Repository) -> None:
    """More than the format asks for: the zstd bytes too, as long as both link the same encoder."""
    for name, stream_id in repository.streams.list():
        data = repository.objects.path(stream_id).read_bytes()
        with Reader(data, repository.algorithm) as reader:
            chunks, inline = [], []
            for number, piece in reader.chunks():
                chunks.append(number)
                inline.append(piece)
            again = stream_of(
                repository.algorithm,
                content_type=reader.content_type,
                named_refs=reader.named_refs,
                object_refs=list(reader.object_refs()),
                chunks=chunks,
                inline=b"".join(inline),
                sizes=[repository.objects.size(each) or 0 for each in reader.object_refs()],
            )
        assert again == data, name


def test_named_refs_name_streams_and_images_that_are_here(repository: Repository) -> None:
    ids = {stream_id: name for name, stream_id in repository.streams.list()}
    seen = set()
    for name in ids.values():
        with repository.streams.open(repository.streams.resolve(name)) as reader:
            for label, object_id in reader.named_refs:
                if label.startswith("composefs.image"):
                    assert repository.images.is_named(object_id)
                else:
                    assert ids[object_id].endswith(label.removeprefix("config:"))
                seen.add(label.partition(":")[0])
            repository.objects.require(list(reader.object_refs()), name)
    assert {"config", "sha256", "composefs.image"} <= seen


def test_publishing_again_changes_no_link(recorded: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """What composefs-rs published is what we would publish: nothing is left to write."""
    path = tmp_path / "repo"
    shutil.copytree(recorded[0], path, symlinks=True)
    with Repository.open(path, writable=True) as repository:
        before = {link: os.lstat(link).st_ino for link in path.rglob("*") if link.is_symlink()}
        publication = Publication(
            streams=[StreamName(name, found, expect=found) for name, found in repository.streams.list()],
            images=[ImageName(found, name) for name, found in repository.images.list_refs(odd=pytest.fail)],
            refs=[
                RefUpdate(name, target, "flat", expect=target)
                for directory in ("ostree/", "oci/")
                for name, target in repository.refs.list(directory, "flat", odd=pytest.fail)
            ],
        )
        assert all(row.expect is not ANY for row in publication.streams)
        repository.publish(publication)
        assert {link: os.lstat(link).st_ino for link in path.rglob("*") if link.is_symlink()} == before
