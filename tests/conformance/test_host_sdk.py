"""The SDK against the core in strict mode, where every message is checked with its schema: the three agree."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from composefs.errors import ConflictError, MissingObjectError
from composefs.ext.calls import CALLS
from composefs.repository import Repository
from support.hosting import Host
from support.populated import populate

ROOT = Path(__file__).parents[2]

EXTENSION = '''#!PYTHON
"""An extension that makes every call of the SDK that needs no terminal or mount."""
from composefs_ext import main
from composefs_ext.drafts import Draft
from composefs_ext.errors import ExistsError

KIND = "0123456789abcdef"


def handler(request, core):
    count = request.arguments["count"]
    with core.progress("files", total=count) as progress:
        files = []
        for number in range(count):
            files.append({"name": core.staging.write(b"%05d" % number * 20, "f"), "size": 100})
            progress.advance(1)
    stored = core.object_put(files).result()
    ids = [row["id"] for row in stored]
    assert core.object_has(ids, [100] * count).result() == [True] * count
    assert core.object_has([]).result() == []
    assert core.object_put_each([{"name": "missing"}]).result()[0]["error"]["kind"] == "not_found"
    assert core.object_get(ids[0], "copy").result() == 100
    with open(core.repository.path_of(ids[0]), "rb") as file:
        assert file.read() == b"00000" * 20
    lines = ["/ 4096 40755 2 0 0 0 0.0 - - -"]
    for number, each in enumerate(ids):
        lines.append(f"/f{number:05} 100 100644 1 0 0 0 0.0 {each[:2]}/{each[2:]} - {each}")
    dump = core.staging.write(("\\n".join(lines) + "\\n").encode(), "dump")
    image = core.image_put(dump).result()["id"]
    assert core.image_digest(dump).result()["id"] == image
    for lines_at_once in (1, count):
        for use in (core.image_put, core.image_digest):
            draft = Draft(core)
            for start in range(0, len(lines), lines_at_once):
                draft.write("".join(line + "\\n" for line in lines[start : start + lines_at_once]).encode())
            assert use(*draft.finish()).result()["id"] == image
    keep = {"xattrs": "keep-user-xattrs"}  # there are none
    assert core.image_put(dump, transforms=keep).result() == core.image_digest(dump, transforms=keep).result()
    assert core.image_put(dump, transforms=keep, expect=image).result()["id"] == image
    assert core.image_dump(dump, "kept", transforms=keep).result() == core.image_dump(dump, "as-is").result()
    assert core.image_dump(dump, "canonical").result() > 0
    assert core.image_dump(None, "of-image", id=image).result() == core.image_dump(dump, "again").result()
    assert core.image_dump(None, "part", id=image, paths=[b"/f00000"] * (count + 1)).result() > 0
    assert core.image_objects(id=image).result() == sorted(ids)
    inline = core.staging.write(b"abc", "inline")
    stream = core.stream_put(
        KIND,
        inline=inline,
        chunks=[-3, *range(count)],
        object_refs=ids,
        named_refs=[("composefs.image", image), *((f"again-{n}", image) for n in range(count))],
    ).result()["id"]
    if request.command == ("many",):
        rows = [{"name": f"every-{number}-{'x' * 200}", "id": stream} for number in range(count)]
        published = core.publish(streams=rows).result()
        assert published == {"streams": [{**row, "previous": None} for row in rows]} | dict.fromkeys(
            ("images", "refs", "remove_refs"), []
        )
        return None
    if request.command == ("missing",):
        core.stream_put(KIND, chunks=[], object_refs=["0" * 64]).result()
    published = core.publish(
        streams=[{"name": "every-1", "id": stream, "if_exists": "keep"}],
        images=[{"id": image, "ref": "every/1"}],
        refs=[{"name": "every/latest", "target": "every-1"}],
    ).result()
    if request.command == ("conflict",):
        core.publish(refs=[{"name": "every/latest", "target": "every-1", "expect": None}]).result()
    got = core.stream_get(ref="every/latest", inline=True, chunks=True, object_refs=True, named_refs=True).result()
    assert (got.chunks, got.object_refs) == ([-3, *range(count)], ids)
    assert dict(got.named_refs) == {"composefs.image": image, **{f"again-{n}": image for n in range(count)}}
    assert core.stream_cat(name="every-1", into="whole").result() == 3 + 100 * count
    assert [row["name"] for row in core.stream_list("every-").result()] == ["every-1"]
    assert core.ref_get("every/latest").result()["id"] == stream
    assert len(core.ref_list("every/").result()) == 1
    assert core.repo_fsck(["every-1"]).result()["ok"]
    assert core.repo_fsck(metadata_only=True).result()["errors"] == []
    assert core.repo_fsck([]).result()["streams_checked"] == 0
    source = request.arguments.get("source")
    if source is not None:
        copied = core.repo_copy(source, streams=["top"], images=["os/1"]).result()
        assert {"top"} == {row["name"] for row in copied["streams"] if "name" in row}
        assert len(copied["images"]) == 2
    core.log("info", "done")
    core.output("every-1\\n")
    return {"stream": stream}


main(handler)
'''


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    source = tmp_path / "source"
    source.mkdir()
    (source / "every").write_text(EXTENSION.replace("PYTHON", sys.executable))
    arguments = [{"name": "count", "kind": "int", "default": 3}, {"name": "source", "kind": "path-read"}]
    manifest = {
        "name": "every",
        "summary": "Every call",
        "version": "1",
        "protocol": [1],
        "commands": [
            {"name": [name], "summary": name, "repository": "write", "arguments": arguments}
            for name in ("all", "many", "missing", "conflict")
        ],
    }
    (source / "every.json").write_text(json.dumps(manifest))
    return Host(tmp_path, monkeypatch, source=source, name="every")


@pytest.mark.parametrize("count", [3, 1500])
def test_every_call_of_the_sdk(host: Host, tmp_path: Path, count: int) -> None:
    source = str(populate(tmp_path / "other").path)
    result = host.run("all", {"count": count, "source": source}, strict=True)
    assert b"".join(host.recorder.outputs) == b"every-1\n"
    assert host.recorder.events
    with Repository.open(host.path) as repository:
        assert repository.streams.list() == [("every-1", result.result["stream"])]
        assert [name for name, _ in repository.images.list_refs(odd=pytest.fail)] == ["every/1"]
    host.assert_nothing_left()


def test_what_was_published_may_take_more_than_a_message(host: Host) -> None:
    host.run("many", {"count": 3000}, strict=True)
    host.assert_nothing_left()


def test_errors_go_all_the_way_through(host: Host) -> None:
    with pytest.raises(MissingObjectError, match=r"0{64}"):
        host.run("missing", {"count": 1}, strict=True)
    host.assert_clean()
    with pytest.raises(ConflictError, match="every/latest"):
        host.run("conflict", {"count": 1}, strict=True)
    host.assert_nothing_left()


def test_sdk_and_core_know_the_same_calls() -> None:
    source = "".join(path.read_text() for path in (ROOT / "extensions/sdk/src/composefs_ext").glob("*.py"))
    assert set(re.findall(r'\b(?:send|_?notify)\(\s*"([a-z.]+)"', source)) == set(CALLS)
