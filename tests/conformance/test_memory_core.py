"""The SDK's core in memory against this core: the same calls, refused by both and as the same kind of error.

Whoever tests an extension with it relies on that.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from composefs_ext.protocol import RANGE_BYTES
from composefs_ext.testing import MemoryCore
from support.calls import KIND, NOWHERE, ROOT, call
from support.hosting import HERE, Host

BAD = HERE / "extensions/bad"
FILE = "/file 5 100644 1 0 0 0 0.0 {} - {}\n"

Do = Callable[..., list[Any]]


@pytest.fixture(params=["this core", "the core in memory"])
def do(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Do:
    """Have the bad extension carry out steps with one core or the other."""
    if request.param == "this core":
        return partial(Host(tmp_path, monkeypatch).do, strict=False)
    memory = MemoryCore(tmp_path, algorithm="sha256", manifest=Path(f"{BAD}.json"))

    def do(*steps: list[Any]) -> list[Any]:
        result = memory.run_program([sys.executable, str(BAD)], ["write"], {"steps": json.dumps(steps)})
        answers: list[Any] = result["answers"]
        return answers

    return do


def ranges(*rows: dict[str, Any]) -> list[Any]:
    return call("object.put", files=[{"name": "hello", **row} for row in rows])


def put(**row: Any) -> list[Any]:
    return ranges(row)


REFUSED = {
    "a staged file elsewhere": (put(name="../hello"), "usage"),
    "a staged file of the core": (put(name="core-1"), "usage"),
    "a staged file that is not there": (put(name="none"), "not_found"),
    "a symlink": (put(name="link"), "usage"),
    "a file of another size": (put(size=4), "corrupt"),
    "a file with another id": (put(expect=NOWHERE), "corrupt"),
    "no list of files": (call("object.put", file=[]), "usage"),
    "two lists of files": (call("object.put", files=[], files_file="hello"), "usage"),
    "no list of ids": (call("object.has"), "usage"),
    "two lists of ids": (call("object.has", ids=[], ids_file="hello"), "usage"),
    "a range that is before the file": (put(offset=-1, size=1), "usage"),
    "a range without a size": (put(offset=0), "usage"),
    "a range of a negative size": (put(offset=0, size=-1), "usage"),
    "a range that is too large": (put(offset=0, size=1 << 30), "too_large"),
    "a range of a byte too many": (put(offset=0, size=RANGE_BYTES + 1), "too_large"),
    "the largest range, which is beyond the end": (put(offset=0, size=RANGE_BYTES), "corrupt"),
    "a range beyond the end": (put(offset=4, size=2), "corrupt"),
    "a range over another": (ranges({"offset": 0, "size": 4}, {"offset": 3, "size": 1}), "usage"),
    "an object that is not there": (call("object.get", id=NOWHERE, into="new"), "missing_object"),
    "a staged file that is there": (call("object.get", id="OBJECT", into="hello"), "exists"),
    "a stream of an object that is not there": (
        call("stream.put", content_type=KIND, object_refs=[NOWHERE]),
        "missing_object",
    ),
    "a stream that names what is not there": (
        call("stream.put", content_type=KIND, named_refs=[["x", NOWHERE]]),
        "missing_object",
    ),
    "chunks of more than there is": (
        call("stream.put", content_type=KIND, inline="hello", chunks=[-6]),
        "invalid",
    ),
    "chunks of less than there is": (
        call("stream.put", content_type=KIND, inline="hello", chunks=[-4]),
        "invalid",
    ),
    "a chunk of no object": (
        call("stream.put", content_type=KIND, chunks=[1], object_refs=["OBJECT"]),
        "invalid",
    ),
    "a stream that is not there": (call("stream.get", name="bad-none"), "not_found"),
    "a stream of no id": (call("stream.get", id=NOWHERE), "missing_object"),
    "a stream by the id of another object": (call("stream.get", id="OBJECT"), "invalid"),
    "half a line of a draft": (call("image.draft", draft="d", part="hello"), "invalid"),
    "a draft that is not there": (call("image.put", dump="dump", draft="none"), "not_found"),
    "another image": (call("image.put", dump="dump", expect=NOWHERE), "corrupt"),
    "an image of an object that is not there": (call("image.put", dump="dangling"), "missing_object"),
    "an image with a file of another size than its object": (call("image.put", dump="resized"), "corrupt"),
    "a digest of an object that is not there": (call("image.digest", dump="dangling"), "missing_object"),
    "an image of no id": (call("image.objects", id=NOWHERE), "missing_object"),
    "an image by the id of another object": (call("image.objects", id="OBJECT"), "invalid"),
    "an image of no name": (call("image.objects", name="bad/none"), "not_found"),
    "a ref that is not there": (call("ref.get", name="bad/none"), "not_found"),
    "somebody else's stream": (call("publish", streams=[{"name": "other-1", "id": "STREAM"}]), "permission"),
    "somebody else's ref": (call("publish", refs=[{"name": "other/x", "target": "bad-1"}]), "permission"),
    "a name for no stream": (call("publish", streams=[{"name": "bad-2", "id": NOWHERE}]), "missing_object"),
    "a name that is taken": (call("publish", streams=[{"name": "bad-1", "id": "OTHER"}]), "exists"),
    "a name that is not as expected": (
        call("publish", streams=[{"name": "bad-1", "id": "OTHER", "if_exists": "replace", "expect": None}]),
        "conflict",
    ),
    "a ref that is not as expected": (
        call("publish", refs=[{"name": "bad/x", "target": "bad-1", "expect": "bad-2"}]),
        "conflict",
    ),
    "a ref to no stream": (call("publish", refs=[{"name": "bad/y", "target": "bad-none"}]), "not_found"),
    "a name for no image": (call("publish", images=[{"id": NOWHERE, "ref": "bad/y"}]), "missing_object"),
    "the removal of no ref": (call("publish", remove_refs=["bad/none"]), "not_found"),
}


def kind(answer: Any) -> str:
    """Return the kind of the error of a call, or of the last row of it that has one."""
    rows = [answer, *answer.get("objects", ())]
    errors = [row.get("data") or row.get("error") for row in rows if "data" in row or "error" in row]
    return errors[-1]["kind"] if errors else "taken"


def test_both_refuse_the_same(do: Do) -> None:
    stored, *_ = do(["write", "hello", "hello"], put())
    object_id = stored["objects"][0]["id"]
    stream, other = do(
        call("stream.put", content_type=KIND, chunks=[0], object_refs=[object_id]),
        call("stream.put", content_type=KIND, chunks=[0, 0], object_refs=[object_id]),
    )
    row = {"name": "bad-1", "id": stream["id"]}
    do(call("publish", streams=[row], refs=[{"name": "bad/x", "target": "bad-1"}]))
    steps = [
        ["write", "hello", "hello"],
        ["write", "dump", ROOT + FILE.format("OB/JECT", "OBJECT")],
        ["write", "resized", ROOT + FILE.replace("5", "6").format("OB/JECT", "OBJECT")],
        ["write", "dangling", ROOT + FILE.format(f"{NOWHERE[:2]}/{NOWHERE[2:]}", NOWHERE)],
        ["symlink", "hello", "link"],
        *(step for step, _ in REFUSED.values()),
    ]
    text = json.dumps(steps).replace("OB/JECT", f"{object_id[:2]}/{object_id[2:]}").replace("OBJECT", object_id)
    answers = do(*json.loads(text.replace("STREAM", stream["id"]).replace("OTHER", other["id"])))
    assert dict(zip(REFUSED, map(kind, answers), strict=True)) == {case: each for case, (_, each) in REFUSED.items()}
    told = dict(zip(REFUSED, answers, strict=True))
    for case, key in (("no list of files", "files"), ("no list of ids", "ids")):
        assert told[case]["message"] == f"give exactly one of {key}, {key}_file"
    streams, refs = do(call("stream.list"), call("ref.list"))
    assert [row["name"] for row in streams["streams"]] == ["bad-1"]
    assert [row["name"] for row in refs["refs"]] == ["bad/x"]


def test_both_answer_the_same(do: Do) -> None:
    """Where ids are not those of the core, what they are of is compared."""
    again, other, *answers = do(
        ["write", "one", "hello"],
        ["write", "again", "hello"],
        ["write", "other", "hello, world"],
        ["write", "inline", "<>"],
        call("object.put", files=[{"name": "one"}, {"name": "again"}, {"name": "none"}]),
        call(
            "object.put", files=[{"name": "other", "offset": 7, "size": 5}, {"name": "other", "offset": 12, "size": 0}]
        ),
    )
    one, twice, none = again["objects"]
    assert one["id"] == twice["id"]
    assert [row["stored"] for row in (one, twice)] == ["moved", "present"]
    assert none["error"]["kind"] == "not_found"
    world, empty = other["objects"]
    assert [(row["size"], row["stored"]) for row in (world, empty)] == [(5, "copied"), (0, "copied")]
    parts = {"chunks": [-1, 0, 1, -1, 0], "object_refs": [one["id"], world["id"]]}
    stream, bare = do(
        ["write", "inline", "<>"],
        call("stream.put", content_type=KIND, inline="inline", **parts, named_refs=[["x", one["id"]]]),
        call("stream.put", content_type="0" * 16),
    )
    first, second = {"name": "bad-1", "id": stream["id"]}, {"name": "bad-2", "id": bare["id"]}
    refs = [{"name": f"bad/{name}", "target": "bad-1"} for name in ("x", "y")]
    published, kept, replaced, removed = do(
        call("publish", streams=[first, second], refs=refs),
        call("publish", streams=[{**first, "id": bare["id"], "if_exists": "keep"}]),
        call("publish", streams=[{**second, "if_exists": "replace", "expect": bare["id"]}]),
        call("publish", remove_refs=["bad/y"], refs=[{**refs[0], "target": "bad-2", "expect": "bad-1"}]),
    )
    assert [row["previous"] for key in ("streams", "refs") for row in published[key]] == [None] * 4
    assert kept["streams"] == [{**first, "previous": stream["id"]}]
    assert replaced["streams"] == [{**second, "previous": bare["id"]}]
    assert removed["remove_refs"] == [{"name": "bad/y", "previous": "bad-1"}]
    assert removed["refs"] == [{"name": "bad/x", "previous": "bad-1"}]
    answers = do(
        call("object.has", ids=[one["id"], NOWHERE]),
        call("object.has", ids=[one["id"]] * 2, sizes=[5, 4]),
        call("object.get", id=world["id"], into="got"),
        ["read", "got"],
        call("stream.cat", name="bad-1", into="whole"),
        ["read", "whole"],
        call("stream.get", name="bad-1", chunks_into="chunks", object_refs_into="refs", inline_into="head"),
        ["read", "chunks"],
        ["read", "refs"],
        ["read", "head"],
        call("stream.get", name="bad-2", sizes_into="none"),
        call("stream.get", id=stream["id"], sizes_into="sizes"),
        ["read", "sizes"],
        call("stream.get", ref="bad/x"),
        call("stream.list", prefix="bad-2"),
        call("stream.list", content_type=KIND),
        call("ref.list", prefix="bad/x"),
        call("ref.list", prefix="bad/y"),
        call("ref.get", name="bad/x"),
    )
    here = {"name": "bad/x", "target": "bad-2", "id": bare["id"]}
    assert answers == [
        {"present": [True, False]},
        {"present": [True, False]},
        {"size": 5},
        "world",
        {"size": 17},
        "<helloworld>hello",
        {"id": stream["id"], "name": "bad-1", "content_type": KIND, "size": 17, "named_refs": [["x", one["id"]]]},
        "".join(f"{chunk}\n" for chunk in parts["chunks"]),
        "".join(f'"{digest}"\n' for digest in parts["object_refs"]),
        "<>",
        {"id": bare["id"], "name": "bad-2", "content_type": "0" * 16, "size": 0, "named_refs": []},
        {"id": stream["id"], "content_type": KIND, "size": 17, "named_refs": [["x", one["id"]]]},
        "5\n5\n",
        {"id": bare["id"], "name": "bad-2", "content_type": "0" * 16, "size": 0, "named_refs": []},
        {"streams": [second]},
        {"streams": [first]},
        {"refs": [here]},
        {"refs": []},
        here,
    ]


def test_both_keep_images(do: Do) -> None:
    (stored,) = do(["write", "hello", "hello"], put())
    object_id = stored["objects"][0]["id"]
    dump = ROOT.replace("4096", "0") + FILE.format(f"{object_id[:2]}/{object_id[2:]}", object_id)
    measured, image = do(["write", "dump", dump], call("image.digest", dump="dump"), call("image.put", dump="dump"))
    assert measured["id"] == image["id"]
    _, objects, by_name, _, text = do(
        call("publish", images=[{"id": image["id"]}, {"id": image["id"], "ref": "bad/image"}]),
        call("image.objects", id=image["id"]),
        call("image.objects", name="bad/image"),
        call("image.dump", id=image["id"], into="text"),
        ["read", "text"],
    )
    assert objects == by_name == {"ids": [object_id]}
    assert text == dump


def test_after_a_cancel_nothing_is_stored_or_published(tmp_path: Path) -> None:
    """Also for who does not look at what comes besides the answers."""
    memory = MemoryCore(tmp_path, algorithm="sha256", manifest=Path(f"{BAD}.json"))
    memory.cancel_at = "stream.list"
    steps = [
        ["write", "hello", "hello"],
        call("stream.put", content_type=KIND),
        call("stream.list"),
        put(),
        call("stream.put", content_type=KIND),
        call("image.put", dump="hello"),
        call("publish", remove_refs=["bad/none"]),
        call("ref.list"),
    ]
    run = memory.run_program([sys.executable, str(BAD)], ["write"], {"steps": json.dumps(steps)})
    assert list(map(kind, run["answers"])) == ["taken", "taken", *["cancelled"] * 4, "taken"]
    assert memory.objects == {}


def test_what_was_not_picked_is_refused(do: Do, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAD_BEFORE", "no-features")
    answers = do(
        ["write", "hello", "hello"],
        put(offset=0, size=5),
        ["write", "part", ROOT],
        call("image.draft", draft="d", part="part"),
        call("image.put", dump="part", draft="d"),
    )
    assert list(map(kind, answers)) == ["usage", "unsupported", "taken"]
