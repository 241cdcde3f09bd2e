"""Streams: stored, read back, and what they may name."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from composefs.ext.options import Stdio
from composefs.repository.streams import Streams
from composefs.splitstream import Reader
from support.calls import (
    BIG,
    BIG_ID,
    EMPTY_ID,
    HELLO,
    HELLO_WORLD,
    KIND,
    NOWHERE,
    WORLD,
    call,
    dump_of,
    kind_of,
    put,
    stored_stream,
)
from support.hosting import Host


def test_stream_round_trip(host: Host) -> None:
    answers = host.do(
        *HELLO_WORLD,
        ["write", "inline", "<>"],
        call("stream.put", content_type=KIND, inline="inline", chunks=[-1, 1, 0, -1], object_refs=[HELLO, WORLD]),
    )
    stream = answers[-1]["id"]
    published, got, *files = host.do(
        call(
            "publish",
            streams=[{"name": "bad-1", "id": stream}],
            refs=[{"name": "bad/a/b%", "target": "bad-1", "expect": None}],
        ),
        call("stream.get", ref="bad/a/b%", inline_into="i", chunks_into="c", object_refs_into="o", named_refs_into="n"),
        ["read", "i"],
        ["read", "c"],
        ["read", "o"],
        ["read", "n"],
        call("stream.get", id=stream),
        call("stream.cat", name="bad-1", into="whole"),
        ["read", "whole"],
        call("stream.list", prefix="bad-"),
        call("stream.list", content_type="0" * 16),
        call("ref.get", name="bad/a/b%"),
        call("ref.list"),
        call("ref.list", prefix="bad/b"),
        call("stream.list", streams_into="list"),
        ["read", "list"],
    )
    assert published["streams"] == [{"name": "bad-1", "id": stream, "previous": None}]
    assert published["refs"] == [{"name": "bad/a/b%", "previous": None}]
    assert got == {"id": stream, "content_type": KIND, "size": 12, "name": "bad-1"}
    assert files[:4] == ["<>", "-1\n1\n0\n-1\n", f'"{HELLO}"\n"{WORLD}"\n', ""]
    assert files[4] == {"id": stream, "content_type": KIND, "size": 12, "named_refs": []}
    assert files[5:7] == [{"size": 12}, "<worldhello>"]
    assert files[7:9] == [{"streams": [{"name": "bad-1", "id": stream}]}, {"streams": []}]
    ref = {"name": "bad/a/b%", "target": "bad-1", "id": stream}
    assert files[9:12] == [ref, {"refs": [ref]}, {"refs": []}]
    assert files[12:] == [{}, json.dumps({"name": "bad-1", "id": stream}, separators=(",", ":")) + "\n"]
    assert os.readlink(host.path / "streams/refs/bad/a%2Fb%25") == "../../bad-1"


def test_an_inline_chunk_is_one_however_long(host: Host) -> None:
    size = 600_000
    *_, stored = host.do(
        ["write", "inline", "x" * size],
        call("stream.put", content_type=KIND, inline="inline", chunks=[-size]),
    )
    _, alone, _, beside = host.do(
        call("stream.get", id=stored["id"], chunks_into="a"),
        ["read", "a"],
        call("stream.get", id=stored["id"], inline_into="i", chunks_into="b"),
        ["read", "b"],
    )
    assert alone == beside == f"-{size}\n"


def test_sizes_of_the_objects_of_a_stream(host: Host) -> None:
    """P-47, P-13: of those that are there, in the order of the references."""
    refs = [BIG_ID, EMPTY_ID, HELLO, WORLD]
    *_, stored = host.do(
        *HELLO_WORLD,
        ["write", "big", BIG.decode()],
        ["write", "empty", ""],
        put("big", "empty"),
        call("stream.put", content_type=KIND, chunks=[2, 0], object_refs=refs),
    )
    hello, world = (host.path / "objects" / each[:2] / each[2:] for each in (HELLO, WORLD))
    hello.unlink()
    world.chmod(0o644)
    world.write_bytes(b"")  # as a power cut may leave it
    _, sizes, numbers, exists, has = host.do(
        call("stream.get", id=stored["id"], sizes_into="s", chunks_into="c"),
        ["read", "s"],
        ["read", "c"],
        call("stream.get", id=stored["id"], sizes_into="s"),
        call("object.has", ids=refs),
    )
    assert sizes == f"{len(BIG)}\n0\nnull\nnull\n"
    assert numbers == "2\n0\n"
    assert kind_of(exists) == "exists"
    assert has == {"present": [True, True, False, False]}


def test_sizes_only_if_they_were_picked(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-9, P-10, P-47: the field is ignored."""
    monkeypatch.setenv("BAD_BEFORE", "no-features")
    stream = stored_stream(host)
    got, left = host.do(call("stream.get", id=stream, sizes_into="s"), ["list"])
    assert got["id"] == stream
    assert left == []


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"chunks": [0]}, "invalid"),
        ({"chunks": [-2]}, "invalid"),
        ({"chunks": []}, "invalid"),
        ({"chunks": ["-1"]}, "usage"),
        ({"chunks": [True]}, "usage"),
        ({"chunks": [-1], "object_refs": [HELLO, HELLO]}, "invalid"),
        ({"chunks": [-1], "object_refs": [NOWHERE]}, "missing_object"),
        ({"chunks": [-1], "object_refs": ["AB" * 32]}, "usage"),
        ({"chunks": [-1], "object_refs": ["ab" * 64]}, "usage"),
        ({"chunks": [-1], "named_refs": [["x", NOWHERE]]}, "missing_object"),
        ({"chunks": [-1], "named_refs": [["x"]]}, "usage"),
        ({"chunks": [-1], "named_refs": [7]}, "usage"),
        ({"chunks": [-1], "named_refs": [[7, HELLO]]}, "usage"),
        ({"chunks": [-1], "named_refs": [["x" * 4097, HELLO]]}, "usage"),
        ({"chunks": [-1], "named_refs": {"x": HELLO}}, "usage"),
        ({"chunks": [-1], "named_refs": [["composefs.image", HELLO]]}, "invalid"),
        ({"chunks": [-1], "named_refs": [["composefs.image", NOWHERE]]}, "missing_object"),
        ({"chunks": [-1], "content_type": "12"}, "usage"),
        ({"chunks": [-1], "content_type": 12}, "usage"),
        ({"chunks": [-1], "inline": "missing"}, "usage"),
    ],
)
def test_stream_put_refuses(host: Host, params: dict[str, Any], kind: str) -> None:
    """P-21."""
    params = {"content_type": KIND, "inline": "inline", **params}
    answer = host.do(
        ["write", "a", "hello"], put("a"), ["write", "inline", "1"], call("stream.put", **params), strict=False
    )
    assert kind_of(answer[-1]) == kind
    host.assert_clean()


def test_stream_that_names_an_image_must_hold_its_objects(host: Host) -> None:
    """P-22."""
    image = host.do(
        ["write", "dump", dump_of(BIG_ID, len(BIG))],
        ["write", "a", BIG.decode()],
        put("a"),
        call("image.put", dump="dump"),
    )[-1]["id"]
    base = host.do(call("stream.put", content_type=KIND, object_refs=[BIG_ID], chunks=[0]))[0]["id"]
    steps = [["write", "dump", dump_of(BIG_ID, len(BIG))], call("image.put", dump="dump")]
    named = [["composefs.image", image]]
    without, itself, through = host.do(
        *steps,
        call("stream.put", content_type=KIND, named_refs=named),
        call("stream.put", content_type=KIND, named_refs=named, object_refs=[BIG_ID]),
        call("stream.put", content_type=KIND, named_refs=[*named, ["base", base]]),
    )[1:]
    assert kind_of(without) == "usage"
    assert BIG_ID in without["message"]
    assert set(itself) == set(through) == {"id", "size"}
    got = host.do(call("stream.get", id=through["id"]))[0]
    assert got["named_refs"] == [["composefs.image", image], ["base", base]]


def test_a_stream_that_is_named_many_times_is_read_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-22: streams each of which names the one before twice would else take twice the time for each of them."""
    *_, image = host.do(
        ["write", "dump", dump_of(BIG_ID, len(BIG))],
        ["write", "a", BIG.decode()],
        put("a"),
        call("image.put", dump="dump"),
    )
    base = stored_stream(host)
    opened: list[str] = []
    really_open = Streams.open

    def noted(streams: Streams, object_id: str) -> Reader:
        opened.append(object_id)
        return really_open(streams, object_id)

    monkeypatch.setattr(Streams, "open", noted)
    named = [["composefs.image", image["id"]], *([f"again-{number}", base] for number in range(50))]
    [without] = host.do(call("stream.put", content_type=KIND, named_refs=named))
    assert kind_of(without) == "usage"
    assert opened == [base]


def test_stream_may_name_an_image_of_an_earlier_run(host: Host) -> None:
    """P-22."""
    image = host.do(
        ["write", "dump", dump_of(BIG_ID, len(BIG))],
        ["write", "a", BIG.decode()],
        put("a"),
        call("image.put", dump="dump"),
    )[-1]["id"]
    named = [["composefs.image", image]]
    without, itself = host.do(
        call("stream.put", content_type=KIND, named_refs=named),
        call("stream.put", content_type=KIND, named_refs=named, object_refs=[BIG_ID]),
    )
    assert kind_of(without) == "usage"
    assert BIG_ID in without["message"]
    assert set(itself) == {"id", "size"}


def test_stream_cat_to_standard_output(host: Host) -> None:
    reading, writing = os.pipe()
    [*_, stored, answer, neither] = host.do(
        *HELLO_WORLD,
        call("stream.put", content_type=KIND, object_refs=[HELLO], chunks=[0]),
        call("stream.cat", id=NOWHERE, stdout=True),
        call("stream.cat", id=NOWHERE),
        stdio=Stdio(stdout=writing),
    )
    assert kind_of(answer) == "missing_object"
    assert kind_of(neither) == "usage"
    [answer] = host.do(call("stream.cat", id=stored["id"], stdout=True), stdio=Stdio(stdout=writing))
    assert answer == {"size": 5}
    assert os.read(reading, 100) == b"hello"
    os.close(reading)
    [broken] = host.do(call("stream.cat", id=stored["id"], stdout=True), stdio=Stdio(stdout=writing))
    assert (kind_of(broken), broken["message"]) == ("io", "writing to standard output: Broken pipe")
    os.close(writing)
    with open("/dev/full", "wb") as full:
        [unwritten] = host.do(call("stream.cat", id=stored["id"], stdout=True), stdio=Stdio(stdout=full.fileno()))
    assert kind_of(unwritten) == "no_space"
    assert unwritten["message"].startswith("writing to standard output: ")


def test_publishing_into_a_file_that_cannot_be_made(host: Host) -> None:
    """All of the call or nothing: what is wrong with the names of files is found before anything is visible."""
    stream = stored_stream(host)
    params = {"streams": [{"name": "bad-1", "id": stream}], "refs": [{"name": "bad/x", "target": "bad-1"}]}
    reserved, taken, twice, listed, published, *files = host.do(
        ["write", "there", "mine"],
        call("publish", **params, streams_into="core-1"),
        call("publish", **params, streams_into="first", refs_into="there"),
        call("publish", **params, streams_into="first", refs_into="first"),
        call("stream.list"),
        call("publish", **params, streams_into="first", refs_into="second"),
        ["read", "first"],
        ["read", "second"],
        ["read", "there"],
        strict=False,
    )
    assert [kind_of(answer) for answer in (reserved, taken, twice)] == ["usage", "exists", "exists"]
    assert listed == {"streams": []}
    assert published == {"images": [], "remove_refs": []}
    assert [json.loads(file) for file in files[:2]] == [
        {"name": "bad-1", "id": stream, "previous": None},
        {"name": "bad/x", "previous": None},
    ]
    assert files[2] == "mine"


def test_streams_that_are_not_there(host: Host) -> None:
    by = ({"name": "bad-1"}, {"ref": "bad/1"}, {"id": NOWHERE})
    answers = host.do(*(call("stream.get", **each) for each in by))
    assert [kind_of(answer) for answer in answers] == ["not_found", "not_found", "missing_object"]


def test_ids_of_named_refs_are_checked(host: Host) -> None:
    """P-18."""
    answers = host.do(
        call("stream.put", content_type=KIND, named_refs=[["child", "../../etc/passwd"]]),
        call("stream.put", content_type=KIND, named_refs=[["child", HELLO.upper()]]),
        strict=False,
    )
    assert [kind_of(answer) for answer in answers] == ["usage", "usage"]
