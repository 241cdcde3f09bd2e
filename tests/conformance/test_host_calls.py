"""Every call of the protocol against a real repository: what it answers, and what it refuses."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import SHA256
from composefs.errors import ComposefsError, PermissionDeniedError
from composefs.ext.session import RunOptions
from composefs.fsverity import digest_bytes
from composefs.linux import landlock
from composefs.protocol.limits import Limits
from composefs.repository import Repository
from support.hosting import Host
from support.populated import populate

KIND = "0123456789abcdef"
HELLO = digest_bytes(b"hello", SHA256).hex()
WORLD = digest_bytes(b"world", SHA256).hex()
NOWHERE = "ab" * 32
BIG = b"x" * 5000
BIG_ID = digest_bytes(BIG, SHA256).hex()
ROOT = "/ 4096 40755 2 0 0 0 0.0 - - -\n"


def dump_of(object_id: str, size: int, path: str | None = None) -> str:
    path = path or f"{object_id[:2]}/{object_id[2:]}"
    return ROOT + f"/file {size} 100644 1 0 0 0 0.0 {path} - {object_id}\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


def call(method: str, **params: Any) -> list[Any]:
    return ["call", method, params]


def put(*names: str) -> list[Any]:
    return call("object.put", files=[{"name": name} for name in names])


def kind_of(answer: dict[str, Any]) -> str:
    kind: str = answer["data"]["kind"]
    return kind


HELLO_WORLD = [["write", "a", "hello"], ["write", "b", "world"], put("a", "b")]


def test_object_put_answers_each_row_by_itself(host: Host) -> None:
    """P-32, P-16, P-18."""
    [answer, left] = host.do(
        ["write", "a", "hello"],
        ["write", "b", "world"],
        ["write", "c", "again"],
        ["write", "d", "again"],
        call(
            "object.put",
            files=[
                {"name": "a", "size": 5, "expect": HELLO},
                {"name": "b", "size": 6},
                {"name": "c", "expect": HELLO},
                {"name": "missing"},
                {"name": "d"},
            ],
        ),
        ["list"],
    )
    first, wrong_size, wrong_id, missing, last = answer["objects"]
    assert first == {"id": HELLO, "size": 5, "stored": "moved"}
    assert wrong_size["error"]["kind"] == wrong_id["error"]["kind"] == "corrupt"
    assert missing["error"]["kind"] == "not_found"
    assert last["stored"] == "moved"
    assert left == ["b", "c"]  # what was refused stays the extension's
    host.assert_clean()


def test_object_that_is_there_already_is_present(host: Host) -> None:
    host.do(["write", "a", "hello"], put("a"))
    [answer, left] = host.do(["write", "a", "hello"], put("a"), ["list"])
    assert answer["objects"] == [{"id": HELLO, "size": 5, "stored": "present"}]
    assert left == []


@pytest.mark.parametrize(
    "name", ["../a", "/etc/passwd", ".hidden", "core-secret", "", "a" * 129, "a\nb", "a\0b", "é", 7, None, ["a"], {}]
)
def test_names_that_are_no_staged_names(host: Host, name: Any) -> None:
    """P-12."""
    answer, dump = host.do(
        ["symlink", "/etc/passwd", "core-secret"],
        call("object.put", files=[{"name": name}]),
        call("image.put", dump=name),
        strict=False,
    )
    assert answer["objects"][0]["error"]["kind"] == "usage"
    assert kind_of(dump) == "usage"
    host.assert_clean()


@pytest.mark.parametrize("name", ["soft", "hard", "also-hard", "fifo", "dir"])
def test_only_regular_files_with_one_link_are_taken(host: Host, name: str) -> None:
    """P-12."""
    [row, dump, inline] = host.do(
        ["symlink", "/etc/passwd", "soft"],
        ["write", "hard", "x"],
        ["link", "hard", "also-hard"],
        ["fifo", "fifo"],
        ["mkdir", "dir"],
        put(name),
        call("image.put", dump=name),
        call("stream.put", content_type=KIND, inline=name, chunks=[-1]),
    )
    assert row["objects"][0]["error"]["kind"] == "usage"
    assert kind_of(dump) == kind_of(inline) == "usage"
    host.assert_clean()


def test_file_kept_open_for_writing_is_copied(host: Host) -> None:
    [answer] = host.do(["write", "a", "hello"], ["keep-open", "a"], put("a"), ["overwrite", "EVIL!"])
    assert answer["objects"][0]["id"] == HELLO
    assert answer["objects"][0]["stored"] in ("copied", "reflinked")
    assert (host.path / "objects" / HELLO[:2] / HELLO[2:]).read_text() == "hello"


def test_object_has_and_get(host: Host) -> None:
    """P-13."""
    has, size, content, exists, missing, reserved = host.do(
        *HELLO_WORLD[:2],
        put("a"),
        call("object.has", ids=[WORLD, HELLO, NOWHERE]),
        call("object.get", id=HELLO, into="copy"),
        ["read", "copy"],
        call("object.get", id=HELLO, into="b"),
        call("object.get", id=WORLD, into="c"),
        call("object.get", id=HELLO, into="core-x"),
        strict=False,
    )[1:]
    assert has == {"present": [False, True, False]}
    assert (size, content) == ({"size": 5}, "hello")
    assert kind_of(exists) == "exists"
    assert kind_of(missing) == "missing_object"
    assert kind_of(reserved) == "usage"


def test_object_has_of_a_size(host: Host) -> None:
    stored, right, wrong, any_size, mismatch, in_a_file = host.do(
        *HELLO_WORLD,
        call("object.has", ids=[HELLO, WORLD], sizes=[5, 5]),
        call("object.has", ids=[HELLO, WORLD, NOWHERE], sizes=[5, 6, 5]),
        call("object.has", ids=[HELLO, NOWHERE], sizes=[None, None]),
        call("object.has", ids=[HELLO, WORLD], sizes=[5]),
        ["write", "sizes", "4\n5\n"],
        call("object.has", ids=[HELLO, WORLD], sizes_file="sizes"),
    )
    assert [row["size"] for row in stored["objects"]] == [5, 5]
    assert right == {"present": [True, True]}
    assert wrong == {"present": [True, False, False]}
    assert any_size == {"present": [True, False]}
    assert kind_of(mismatch) == "usage"
    assert in_a_file == {"present": [False, True]}


def test_into_does_not_write_through_a_planted_link(host: Host, tmp_path: Path) -> None:
    """P-13."""
    victim = tmp_path / "victim"
    [_, answer] = host.do(
        ["write", "a", "hello"],
        put("a"),
        ["symlink", str(victim), "trap"],
        call("object.get", id=HELLO, into="trap"),
    )
    assert kind_of(answer) == "exists"
    assert not victim.exists()


def test_lists_in_files(host: Host) -> None:
    """P-14, P-15."""
    ids = "".join(json.dumps(each) + "\n" for each in [HELLO, NOWHERE] * 600)
    answers = host.do(
        ["write", "a", "hello"],
        put("a"),
        ["write", "ids", ids],
        call("object.has", ids_file="ids", present_into="present"),
        ["read", "present"],
        call("object.has", ids_file="ids"),
        call("object.has", ids=[], ids_file="ids"),
        ["write", "torn", f'"{HELLO}",\n"{HELLO}" "{HELLO}"\n'],
        call("object.has", ids_file="torn"),
        ["write", "two", f'"{HELLO}","{HELLO}"\n'],
        call("object.has", ids_file="two"),
        ["write", "number", "7\n"],
        call("object.has", ids_file="number"),
        ["write", "unended", f'"{HELLO}"'],
        call("object.has", ids_file="unended"),
        strict=False,
    )[1:]
    into, present, too_large, both, torn, two, number, unended = answers
    assert into == {}
    assert present == "true\nfalse\n" * 600
    assert kind_of(too_large) == "too_large"
    assert kind_of(both) == "usage"
    assert kind_of(torn) == kind_of(two) == "invalid"
    assert kind_of(number) == "usage"
    assert unended == {"present": [True]}


def test_too_many_rows_for_a_message(host: Host) -> None:
    """P-14."""
    [has, files] = host.do(
        call("object.has", ids=[HELLO] * 1001), call("object.put", files=[{"name": "a"}] * 1001), strict=False
    )
    assert kind_of(has) == kind_of(files) == "too_large"


def test_files_and_rows_above_the_limits(host: Host) -> None:
    rows, size = host.do(
        ["write", "ids", f'"{HELLO}"\n' * 11],
        call("object.has", ids_file="ids"),
        ["write", "dump", ROOT * 100],
        call("image.put", dump="dump"),
        limits=Limits(file_rows=10, inline_bytes=1000),
    )
    assert kind_of(rows) == kind_of(size) == "too_large"


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


def test_image_put_digest_and_dump(host: Host) -> None:
    """P-18, P-21."""
    first, stored, expected, wrong, second_format, canonical, text = (
        host.do(
            ["write", "a", BIG.decode()],
            ["write", "dump", dump_of(BIG_ID, len(BIG))],
            call("image.digest", dump="dump"),
            put("a"),
            call("image.put", dump="dump"),
            call("image.put", dump="dump", expect=NOWHERE),
            call("image.digest", dump="dump", format=2),
            call("image.dump", dump="dump", into="canonical"),
            ["read", "canonical"],
        )[0:1]
        + host.do(
            ["write", "a", BIG.decode()],
            ["write", "dump", dump_of(BIG_ID, len(BIG))],
            put("a"),
            call("image.put", dump="dump"),
            call("image.digest", dump="dump"),
            call("image.put", dump="dump", expect=NOWHERE),
            call("image.digest", dump="dump", format=2),
            call("image.dump", dump="dump", into="canonical"),
            ["read", "canonical"],
        )[1:]
    )
    assert kind_of(first) == "missing_object"
    assert stored == expected
    assert kind_of(wrong) == "corrupt"
    assert second_format["id"] != stored["id"]
    assert canonical["size"] == len(text)
    assert BIG_ID in text
    host.assert_clean()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (dump_of(BIG_ID, 5000, "ab/cdef"), "invalid"),
        (dump_of(BIG_ID, 5000).replace(f" - {BIG_ID}", " - -"), "invalid"),
        ("no dump\n", "invalid"),
        ("", "invalid"),
    ],
)
def test_dumps_that_are_refused(host: Host, text: str, kind: str) -> None:
    """P-19, P-20."""
    answers = host.do(
        ["write", "a", BIG.decode()],
        put("a"),
        ["write", "dump", text],
        call("image.put", dump="dump"),
        call("image.put", dump="dump", format=3),
        call("image.put", dump="dump", transforms=["usr"]),
        strict=False,
    )
    assert kind_of(answers[1]) == kind
    assert kind_of(answers[2]) in ("usage", kind)
    assert kind_of(answers[3]) == "usage"
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


PARTS = f"""\
/d 0 40755 3 0 0 0 0.0 - - -
/d/e 0 40755 2 0 0 0 0.0 - - -
/d/e/big {len(BIG)} 100644 1 0 0 0 0.0 {BIG_ID[:2]}/{BIG_ID[2:]} - {BIG_ID}
/d/e/sp\\x20ace 0 100644 1 0 0 0 0.0 - - -
/z 2 100644 1 0 0 0 0.0 - ab -
"""


@pytest.mark.parametrize("erofs_format", [0, 1, 2])
def test_images_are_read_back(host: Host, erofs_format: int) -> None:
    """P-19."""
    [image] = host.do(
        ["write", "dump", ROOT + PARTS],
        ["write", "a", BIG.decode()],
        put("a"),
        call("image.put", dump="dump", format=erofs_format),
    )[-1:]
    text = (ROOT.replace("4096 40755 2", "0 40755 3") + PARTS).replace("/d 0 40755 3", "/d 0 40755 3")
    answers = host.do(
        ["write", "dump", text],
        call("publish", images=[{"id": image["id"], "ref": "bad/1"}]),
        call("image.dump", id=image["id"], into="all"),
        ["read", "all"],
        call("image.dump", name="bad/1", into="some", paths=["/z", "/d/e", "/d/e/sp\\x20ace", "//z/"]),
        ["read", "some"],
        call("image.dump", dump="dump", into="same", paths=["/z", "/d/e", "/d/e/sp\\x20ace", "//z/"]),
        ["read", "same"],
        call("image.dump", id=image["id"], into="root", paths=["/"]),
        ["read", "root"],
        call("image.objects", id=image["id"]),
        call("image.objects", name="bad/1", ids_into="ids"),
        ["read", "ids"],
    )
    _, whole, all_text, part, some, _, same, _, root, listed, filed, ids = answers
    assert all_text == root == text
    assert whole == {"size": len(text)}
    lines = text.splitlines(keepends=True)
    assert some == same == lines[5] + "".join(lines[2:5]) + lines[4] + lines[5]
    assert part == {"size": len(some)}
    assert listed == {"ids": [BIG_ID]}
    assert filed == {}
    assert json.loads(ids) == BIG_ID


def test_reading_images_refuses(host: Host) -> None:
    """P-19."""
    [image] = host.do(["write", "dump", ROOT], call("image.put", dump="dump"), *HELLO_WORLD[:1], put("a"))[:1]
    answers = host.do(
        call("image.dump", id=image["id"], into="a", paths=["/missing"]),
        call("image.dump", id=image["id"], into="b", paths=["missing"]),
        call("image.dump", id=image["id"], into="c", paths=["/a b\\"]),
        call("image.dump", id=image["id"], into="d", paths=[7]),
        call("image.dump", id=image["id"], name="bad/1", into="e"),
        call("image.dump", id=HELLO, into="f"),
        call("image.dump", name="bad/none", into="g"),
        call("image.objects", id=HELLO),
        call("image.objects", id=NOWHERE),
        call("image.objects", name=7),
        call("image.objects"),
        strict=False,
    )
    assert [kind_of(answer) for answer in answers] == [
        "not_found", "usage", "usage", "usage", "usage", "invalid", "not_found", "invalid", "missing_object", "usage",
        "usage",
    ]  # fmt: skip
    answers = host.do(call("image.dump", id=image["id"], into="a"), call("image.objects", id=HELLO), command="none")
    assert [kind_of(answer) for answer in answers] == ["permission"] * 2
    host.assert_clean()


def publish_steps(host: Host) -> str:
    stream: str = host.do(call("stream.put", content_type=KIND))[0]["id"]
    return stream


@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"streams": [{"name": "ostree-1", "id": "STREAM"}]}, "permission"),
        ({"streams": [{"name": "bad", "id": "STREAM"}]}, "permission"),
        ({"streams": [{"name": "bad-/x", "id": "STREAM"}]}, "invalid"),
        ({"streams": [{"name": "bad-1", "id": NOWHERE}]}, "missing_object"),
        ({"streams": [{"name": "bad-1", "id": HELLO}]}, "invalid"),
        ({"streams": [{"name": "bad-1", "id": "STREAM", "expect": NOWHERE}]}, "conflict"),
        ({"streams": [{"name": "bad-1", "id": "STREAM", "if_exists": "maybe"}]}, "usage"),
        ({"streams": [{"name": "bad-1"}]}, "usage"),
        ({"streams": ["bad-1"]}, "usage"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}, {"name": "bad-1", "id": "STREAM"}]}, "usage"),
        (
            {"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "oci/x", "target": "bad-1"}]},
            "permission",
        ),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad", "target": "bad-1"}]}, "permission"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad/..", "target": "bad-1"}]}, "invalid"),
        (
            {"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad/x", "target": "oci-1"}]},
            "permission",
        ),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "refs": [{"name": "bad/x", "target": "bad-2"}]}, "not_found"),
        (
            {
                "streams": [{"name": "bad-1", "id": "STREAM"}],
                "refs": [{"name": "bad/x", "target": "bad-1", "expect": "y"}],
            },
            "conflict",
        ),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "remove_refs": ["bad/x"]}, "not_found"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "remove_refs": ["ostree/x"]}, "permission"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "images": [{"id": NOWHERE}]}, "missing_object"),
        ({"streams": [{"name": "bad-1", "id": "STREAM"}], "images": [{"id": HELLO}]}, "invalid"),
    ],
)
def test_publish_refuses_and_then_nothing_is_visible(host: Host, params: dict[str, Any], kind: str) -> None:
    """P-27, P-21, P-23."""
    stream = host.do(*HELLO_WORLD, call("stream.put", content_type=KIND))[-1]["id"]
    filled = json.loads(json.dumps(params).replace("STREAM", stream))
    assert kind_of(host.do(call("publish", **filled), strict=False)[0]) == kind
    host.assert_clean()


def test_publish_expectations_and_replacement(host: Host) -> None:
    one = host.do(call("stream.put", content_type=KIND))[0]["id"]
    two = host.do(call("stream.put", content_type="f" * 16))[0]["id"]

    def name(stream: str, **more: Any) -> list[Any]:
        return call("publish", streams=[{"name": "bad-1", "id": stream, **more}])

    first, again, fail, keep, conflict, replaced = host.do(
        name(one, expect=None),
        name(one),
        name(two),
        name(two, if_exists="keep"),
        name(two, if_exists="replace", expect=two),
        name(two, if_exists="replace", expect=one),
    )
    assert first["streams"] == [{"name": "bad-1", "id": one, "previous": None}]
    assert again["streams"] == keep["streams"] == [{"name": "bad-1", "id": one, "previous": one}]
    assert kind_of(fail) == "exists"
    assert kind_of(conflict) == "conflict"
    assert replaced["streams"] == [{"name": "bad-1", "id": two, "previous": one}]
    ref, removed, gone = host.do(
        call("publish", refs=[{"name": "bad/x", "target": "bad-1"}]),
        call("publish", remove_refs=[{"name": "bad/x", "expect": "bad-1"}]),
        call("ref.get", name="bad/x"),
    )
    assert ref["refs"] == [{"name": "bad/x", "previous": None}]
    assert removed["remove_refs"] == [{"name": "bad/x", "previous": "bad-1"}]
    assert kind_of(gone) == "not_found"


def test_image_refs_are_the_extensions_own_or_typed(host: Host) -> None:
    """P-23."""
    steps = [["write", "dump", ROOT], call("image.put", dump="dump")]
    image = host.do(*steps)[0]["id"]
    own, foreign = host.do(
        call("publish", images=[{"id": image, "ref": "bad/1"}]),
        call("publish", images=[{"id": image, "ref": "system"}]),
    )
    typed = host.do(call("publish", images=[{"id": image, "ref": "system"}]), arguments={"image": "system"})[0]
    assert own["images"] == typed["images"] == [{"id": image}]
    assert kind_of(foreign) == "permission"
    with Repository.open(host.path) as repository:
        assert set(repository.images.list_refs()) == {("bad/1", image), ("system", image)}


def test_commands_get_no_more_than_their_repository_mode(host: Host) -> None:
    """P-31."""
    digest, has, put_object, published, mount = host.do(
        ["write", "dump", ROOT],
        call("image.digest", dump="dump"),
        call("object.has", ids=[HELLO]),
        call("object.put", files=[]),
        call("publish"),
        call("image.mount", id=HELLO, path="/mnt"),
        command="read",
    )
    assert set(digest) == {"id", "size"}
    assert has == {"present": [False]}
    assert kind_of(put_object) == kind_of(published) == kind_of(mount) == "permission"
    digest, has, listing = host.do(
        ["write", "dump", ROOT],
        call("image.digest", dump="dump"),
        call("object.has", ids=[HELLO]),
        call("stream.list"),
        command="none",
    )
    assert len(digest["id"]) == 128  # sha512 without a repository
    assert kind_of(has) == kind_of(listing) == "permission"
    host.assert_nothing_left()


def test_mount_wants_paths_that_the_user_typed(host: Host, tmp_path: Path) -> None:
    """P-24, P-31."""
    untyped, missing = host.do(
        call("image.mount", id=HELLO, path="/"),
        call("image.mount", id=HELLO, path=str(tmp_path)),
        command="mount",
        arguments={"path": str(tmp_path)},
    )
    assert kind_of(untyped) == "permission"
    assert kind_of(missing) == "not_found"


def test_reading_from_another_repository(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-24."""
    other = Host(tmp_path / "other", monkeypatch)
    stream = other.do(call("stream.put", content_type=KIND))[0]["id"]
    other.do(call("publish", streams=[{"name": "bad-1", "id": stream}], refs=[{"name": "bad/x", "target": "bad-1"}]))
    path = str(other.path)
    got, listed, ref, refused = host.do(
        call("stream.get", ref="bad/x", **{"from": path}),
        call("stream.list", **{"from": path}),
        call("ref.get", name="bad/x", **{"from": path}),
        call("stream.list", **{"from": "/srv/other"}),
        command="none",
        arguments={"path": path},
    )
    assert got["id"] == ref["id"] == listed["streams"][0]["id"] == stream
    assert kind_of(refused) == "permission"


def test_checking_the_repository(host: Host) -> None:
    """P-15."""
    _, stream = host.do(["write", "data", "x" * 100], put("data"), call("stream.put", content_type=KIND))
    host.do(
        call("publish", streams=[{"name": "bad-1", "id": stream["id"]}], refs=[{"name": "bad/x", "target": "bad-1"}])
    )
    whole, some, light = host.do(
        call("repo.fsck"), call("repo.fsck", streams=["bad-1"]), call("repo.fsck", metadata_only=True)
    )
    assert (whole["ok"], whole["objects_checked"], whole["streams_checked"]) == (True, 2, 1)
    assert (some["ok"], some["objects_checked"], some["errors"]) == (True, 1, [])
    assert light["objects_checked"] == 0
    damaged = host.path / "objects" / stream["id"][:2] / stream["id"][2:]
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    damaged_answer, into, lines, unknown, wrong = host.do(
        call("repo.fsck"),
        call("repo.fsck", errors_into="errors"),
        ["read", "errors"],
        call("repo.fsck", streams=["bad-2"]),
        call("repo.fsck", streams=[7]),
        strict=False,
    )
    assert not damaged_answer["ok"]
    assert damaged_answer["affected"] == {"streams": ["bad-1"], "images": [], "refs": ["streams/refs/bad/x"]}
    assert "errors" not in into
    assert lines.count("\n") == len(damaged_answer["errors"]) == 2
    assert (kind_of(unknown), kind_of(wrong)) == ("not_found", "usage")


def test_copying_from_another_repository(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P-24, P-27."""
    other = populate(tmp_path / "other")
    path = str(other.path)
    steps = [
        call("repo.copy", streams=["top"], images=["os/1"], **{"from": path}),
        call("repo.copy", streams=["none"], **{"from": path}),
        call("repo.copy", streams=["os/1"], **{"from": path}),
        call("repo.copy", streams=["top"], **{"from": "/srv/other"}),
        call("repo.copy", streams=["top"]),
        call("object.has", ids=sorted(other.live)),
        call("publish", streams=[{"name": "bad-1", "id": other.top}], images=[{"id": other.inner}]),
    ]
    copied, none, no_stream, untyped, missing, has, published = host.do(*steps, arguments={"path": path}, strict=False)
    ids = {"from_id": other.top, "id": other.top}
    assert {"name": "top", **ids} in copied["streams"]
    assert {"from_id": other.layer, "id": other.layer} in copied["streams"]
    assert {row["id"] for row in copied["images"]} == {other.inner, other.alone}
    assert (copied["objects"], copied["present"]) == (9, 0)
    assert [kind_of(each) for each in (none, no_stream, untyped, missing)] == [
        "not_found",
        "not_found",
        "permission",
        "usage",
    ]
    assert has == {"present": [True] * 9}
    assert published["streams"][0]["id"] == other.top


def test_unknown_calls_and_fields(host: Host) -> None:
    """P-9."""
    unknown, stray, wrong = host.do(
        call("telepathy", mind="open"),
        call("object.has", ids=[], stray={"deep": [1]}),
        ["call", "object.has", [1]],
        strict=False,
    )
    assert (unknown["code"], kind_of(unknown)) == (-32601, "unsupported")
    assert stray == {"present": []}
    assert (wrong["code"], kind_of(wrong)) == (-32602, "usage")


def test_strict_mode_checks_calls_with_the_schemas(host: Host) -> None:
    [answer] = host.do(call("stream.list", prefix=7))
    assert kind_of(answer) == "usage"
    assert "$.params.prefix" in answer["message"]


def test_answers_come_in_the_order_of_the_calls(host: Host) -> None:
    """P-7."""
    [order] = host.do(["pipeline", "object.has", [{"ids": [HELLO] * (number % 7)} for number in range(64)]])
    assert order == [1000 + number for number in range(64)]


def test_output_log_and_progress(host: Host) -> None:
    """P-33."""
    steps = [
        ["notify", "output", {"text": "héllo\n"}],
        ["write", "report", "from a file\n"],
        ["notify", "output", {"file": "report"}],
        call("output", text="and a call\n"),
        ["list"],
        ["notify", "log", {"level": "warning", "message": "a\x1b[2Jb"}],
        [
            "notify",
            "progress",
            {"id": "x", "kind": "progress", "done": 1, "total": 2, "unit": "bytes", "label": "L\x07"},
        ],
        ["notify", "progress", {"id": "x", "kind": "nonsense"}],
        ["notify", "future", {"anything": 1}],
        call("log", level="info", message="end"),
    ]
    answers = host.do(*steps, strict=False)
    assert answers == [{}, [], {}]
    assert b"".join(host.recorder.outputs) == "héllo\nfrom a file\nand a call\n".encode()
    assert ("warning", "a\ufffd[2Jb") in host.recorder.logs
    assert [level for level, _ in host.recorder.logs] == ["warning", "debug", "info"]
    [event] = host.recorder.events
    assert (event.id, event.done, event.total, event.unit, event.label) == ("x", 1, 2, "bytes", "L\ufffd")


def test_json_drops_output_and_removes_its_files(host: Host) -> None:
    """P-34, P-16."""
    steps = [["write", "report", "text"], call("output", file="report"), call("output", text="text"), ["list"]]
    result = host.run("write", {"steps": json.dumps(steps)}, options=RunOptions(json=True))
    assert result.result["answers"] == [{}, {}, []]
    assert host.recorder.outputs == []


def test_the_process_is_as_promised(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """P-36, P-37, P-38."""
    monkeypatch.setenv("BAD_WANTED", "yes")
    monkeypatch.setenv("OTHER", "no")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("PYTHONPATH", "/nonexistent")
    monkeypatch.setenv("https_proxy", "http://proxy/")
    inherited = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(inherited, True)
    environment, descriptors, (no_new_privileges, leads_session, directory), welcome = host.do(
        ["environment"], ["descriptors"], ["status"], ["welcome"]
    )
    os.close(inherited)
    assert environment["BAD_WANTED"] == "yes"
    assert environment["https_proxy"] == "http://proxy/"
    assert not {"OTHER", "LD_PRELOAD", "PYTHONPATH"} & set(environment)
    assert descriptors == [0, 1, 2]
    assert (no_new_privileges, leads_session) == ("1", True)
    assert directory == welcome["staging"]
    assert Path(directory).parents[2] == host.path
    assert welcome["repository"]["algorithm"] == "sha256"
    assert Path(welcome["cache"]).stat().st_mode & 0o777 == 0o700
    assert "x-stray" in welcome


@pytest.mark.parametrize("confine", [True, False])
def test_confinement(host: Host, tmp_path: Path, confine: bool) -> None:
    """P-36: where the kernel has Landlock, only staging and the cache can be written, and TCP needs a permission."""
    version = landlock.abi()
    output = tmp_path / "typed" / "output"
    output.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        steps = [
            ["welcome"],
            ["try-to-write", "in-staging"],
            ["try-to-write", "/dev/null"],
            ["try-to-write", str(output)],
            ["try-to-write", str(host.path / "objects/intruder")],
            ["try-to-write", str(tmp_path / "elsewhere")],
            ["try-to-connect", server.getsockname()[1]],
        ]
        result = host.run(
            "write", {"steps": json.dumps(steps), "output": str(output)}, options=RunOptions(confine=confine)
        )
    _, *written, objects, elsewhere, connected = result.result["answers"]
    assert written == ["written"] * 3
    assert objects == elsewhere == ("Permission denied" if confine and version else "written")
    assert connected == ("Permission denied" if confine and version >= 4 else "Success")


def test_staging_of_a_reading_command_is_in_tmpdir(host: Host, environment: Path) -> None:
    [welcome] = host.do(["welcome"], command="read")
    assert welcome["staging"].startswith(str(environment / "tmp"))
    assert welcome["repository"]["writable"] is False
    host.assert_nothing_left()


def test_user_pipes_are_descriptors_3_and_4(host: Host) -> None:
    """P-37."""
    (their_in, our_in), (our_out, their_out) = os.pipe(), os.pipe()
    os.write(our_in, b"question")
    os.close(our_in)
    answers = host.do(
        ["copy-stdin"],
        ["write-stdout", "answer"],
        ["descriptors"],
        command="stdio",
        stdin_fd=their_in,
        stdout_fd=their_out,
    )
    assert answers == ["question", [0, 1, 2, 3, 4]]
    assert os.read(our_out, 100) == b"answer"
    for fd in (their_in, our_out, their_out):
        os.close(fd)


def test_terminals_are_refused(host: Host) -> None:
    """P-37."""
    controller, terminal = os.openpty()
    try:
        with pytest.raises(PermissionDeniedError, match="standard input is a terminal"):
            host.do(command="stdio", stdin_fd=terminal, stdout_fd=1)
        stream = publish_steps(host)
        [answer] = host.do(call("stream.cat", id=stream, stdout=True), stdout_fd=terminal)
        assert kind_of(answer) == "permission"
    finally:
        os.close(controller)
        os.close(terminal)


def test_stream_cat_to_standard_output(host: Host) -> None:
    reading, writing = os.pipe()
    [*_, stored, answer, neither] = host.do(
        *HELLO_WORLD,
        call("stream.put", content_type=KIND, object_refs=[HELLO], chunks=[0]),
        call("stream.cat", id=NOWHERE, stdout=True),
        call("stream.cat", id=NOWHERE),
        stdout_fd=writing,
    )
    assert kind_of(answer) == "missing_object"
    assert kind_of(neither) == "usage"
    [answer] = host.do(call("stream.cat", id=stored["id"], stdout=True), stdout_fd=writing)
    assert answer == {"size": 5}
    assert os.read(reading, 100) == b"hello"
    os.close(reading)
    [broken] = host.do(call("stream.cat", id=stored["id"], stdout=True), stdout_fd=writing)
    assert kind_of(broken) == "io"
    os.close(writing)


def test_command_that_needs_a_repository_is_not_started_without(host: Host) -> None:
    from composefs.ext.session import run_extension

    with pytest.raises(ComposefsError, match="needs a repository"):
        run_extension(host.extension, ["write"], {"steps": "[]"})
