"""What a command may do with its repository, and with another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs.errors import ComposefsError
from composefs.ext.launch import launch
from composefs.ext.options import RunOptions
from support.calls import HELLO, KIND, ROOT, call, kind_of, put
from support.hosting import Host
from support.populated import populate


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


def test_command_that_needs_a_repository_is_not_started_without(host: Host) -> None:
    line = host.line("write", {"steps": "[]"})
    with pytest.raises(ComposefsError, match="needs a repository"), launch(line, None, RunOptions()):
        pass


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
