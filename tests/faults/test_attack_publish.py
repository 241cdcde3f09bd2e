"""Streams and images that an extension writes itself, as objects like any other: what is not whole gets no name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from composefs.repository import Repository
from support.calls import HELLO, NOWHERE, ROOT, call, dump_of, kind_of, put
from support.commands import cfsctl
from support.hosting import Host
from support.splitstreams import stream_of


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def written(host: Host, **parts: Any) -> str:
    """Store the bytes of a stream as an object, which nobody looks into then."""
    with Repository.open(host.path, writable=True) as repository:
        return repository.objects.store_parts([stream_of(SHA256, content_type=1, **parts)]).id


def path(object_id: str) -> str:
    return f"{object_id[:2]}/{object_id[2:]}"


def named(stream: str) -> list[Any]:
    return call("publish", streams=[{"name": "bad-1", "id": stream}], refs=[{"name": "bad/kept", "target": "bad-1"}])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("parts", [{"object_refs": [NOWHERE]}, {"named_refs": [("layer", NOWHERE)]}])
def test_a_stream_that_names_what_is_not_there_gets_no_name(host: Host, parts: dict[str, Any], first: bool) -> None:
    """P-21; garbage collection refused to work from then on.  That a stream was read makes it no better."""
    stream = written(host, **parts)
    looks = [call("stream.get", id=stream)] if first else []
    answers = host.do(*looks, named(stream))
    assert kind_of(answers[-1]) == "missing_object"
    assert NOWHERE in answers[-1]["message"]
    host.assert_clean()
    cfsctl("--repo", host.path, "gc")


def test_a_stream_that_keeps_not_all_of_its_image_gets_no_name(host: Host) -> None:
    """P-22: other garbage collectors would remove what it does not list."""
    dump = ["write", "dump", dump_of(HELLO, 5)]
    image = host.do(["write", "a", "hello"], put("a"), dump, call("image.put", dump="dump"))[-1]["id"]
    [answer] = host.do(named(written(host, named_refs=[("composefs.image", image)])))
    assert kind_of(answer) == "usage"
    assert HELLO in answer["message"]
    host.assert_clean()


def test_a_stream_that_is_whole_gets_a_name(host: Host) -> None:
    dump = ["write", "dump", ROOT]
    image = host.do(["write", "a", "hello"], put("a"), dump, call("image.put", dump="dump"))[-1]["id"]
    stream = written(host, object_refs=[HELLO], named_refs=[("composefs.image", image)])
    [answer] = host.do(named(stream))
    assert answer["streams"] == [{"name": "bad-1", "id": stream, "previous": None}]
    cfsctl("--repo", host.path, "fsck")
    cfsctl("--repo", host.path, "gc")


@pytest.mark.parametrize("look", [None, "image.objects", "stream.put"])
def test_an_image_that_names_what_is_not_there_gets_no_name(host: Host, look: str | None) -> None:
    """P-21.  That the core has read it in this run makes it no better."""
    with Repository.open(host.path, writable=True) as repository:
        image = repository.images.put(erofs.write(dumpfile.parse(dump_of(NOWHERE, 5).encode(), SHA256), version=1)).id
    looks = {
        None: [],
        "image.objects": [call("image.objects", id=image)],
        "stream.put": [call("stream.put", content_type="0" * 16, named_refs=[("composefs.image", image)])],
    }
    answers = host.do(*looks[look], call("publish", images=[{"id": image, "ref": "bad/image"}]))
    assert kind_of(answers[-1]) == "missing_object"
    assert NOWHERE in answers[-1]["message"]
    host.assert_clean()
    cfsctl("--repo", host.path, "fsck")


@pytest.mark.parametrize("look", [False, True], ids=["at once", "after a look"])
@pytest.mark.parametrize("digest", [True, False], ids=["another digest", "no digest"])
def test_an_image_that_leads_to_another_object_than_it_says_gets_no_name(host: Host, digest: bool, look: bool) -> None:
    """Without fs-verity its file would show the other object, which garbage collection does not keep for it."""
    secret, other = (
        row["id"] for row in host.do(["write", "a", "secret"], ["write", "b", "other"], put("a", "b"))[-1]["objects"]
    )
    lines = (
        f"{ROOT}/d 0 40755 2 0 0 0 0.0 - - -\n/d/file 5 100644 1 0 0 0 0.0 {path(other)} - {other if digest else '-'}\n"
    )
    data = b"".join(erofs.write(dumpfile.parse(lines.encode(), SHA256), version=1))
    data = data.replace(path(other).encode(), path(secret).encode())
    with Repository.open(host.path, writable=True) as repository:
        image = repository.objects.store_parts([data]).id
    looks = [call("image.objects", id=image)] if look else []
    answer = host.do(*looks, call("publish", images=[{"id": image, "ref": "bad/image"}]))[-1]
    assert kind_of(answer) == "invalid"
    assert answer["message"].startswith(f"image {image} in {host.path}: malformed image: the file 'file' has")
    host.assert_clean()
