"""A scripted extension checks a core, by its command line alone: this cfsctl, or the one that COMPOSEFS_CORE names.

The extension, tests/support/extensions/bad, makes the calls that STEPS tell it and returns what it was answered; or it
misbehaves.  Nothing is imported from the core (docs/conformance.md).
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.commands import CFSCTL, run

EXTENSIONS = Path(__file__).parents[1] / "support/extensions"
CORE = shlex.split(os.environ.get("COMPOSEFS_CORE", CFSCTL))
KIND = "0123456789abcdef"
NOWHERE = "ab" * 32
ROOT = "/ 4096 40755 2 0 0 0 0.0 - - -\n"


class Core:
    """A core's command, a repository, and the extension."""

    def __init__(self, directory: Path) -> None:
        self.repository = directory / "repo"
        self.pids = directory / "pids"
        run(*CORE, "init", "--insecure", "--algorithm", "fsverity-sha256-12", self.repository)

    def do(self, *steps: list[Any], command: str = "write") -> list[Any]:
        """Have the extension carry out steps; return what it was answered."""
        done = run(*CORE, "--repo", self.repository, "bad", command, "--steps", json.dumps(steps), "--json")
        answers: list[Any] = json.loads(done.stdout)["answers"]
        return answers

    def kinds(self, *steps: list[Any], command: str = "write") -> list[str]:
        """The kinds of the errors that the calls among the steps are answered with."""
        return [answer["data"]["kind"] if "data" in answer else "ok" for answer in self.do(*steps, command=command)]

    def names(self) -> tuple[list[Any], list[Any]]:
        streams, refs = self.do(["call", "stream.list", {}], ["call", "ref.list", {}], command="read")
        return streams["streams"], refs["refs"]


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Core]:
    for name in ("bad", "bad.json"):
        (tmp_path / "ext").mkdir(exist_ok=True)
        (tmp_path / "ext" / name).write_bytes((EXTENSIONS / name).read_bytes())
        (tmp_path / "ext" / name).chmod(0o755)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(tmp_path / "ext"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    yield Core(tmp_path)
    staging = tmp_path / "repo/staging"
    assert not staging.exists() or not list(staging.iterdir())


def call(method: str, **params: Any) -> list[Any]:
    return ["call", method, params]


FATAL = [
    ("P-1", "batch"),
    ("P-1", "not-utf8"),
    ("P-2", "long-line"),
    ("P-3", "no-version"),
    ("P-3", "result-is-a-list"),
    ("P-3", "no-params"),
    ("P-3", "result-and-error"),
    ("P-4", "rather-deep"),
    ("P-4", "huge-integer"),
    ("P-4", "nan"),
    ("P-5", "rubbish"),
    ("P-6", "wrong-answer"),
    ("P-6", "text-id"),
    ("P-6", "null-id"),
    ("P-8", "too-many-calls"),
    ("P-11", "publish-without-id"),
    ("P-30", "exits"),
    ("P-41", "status-seven"),
]


@pytest.mark.parametrize(("rule", "how"), FATAL, ids=[how for _, how in FATAL])
def test_what_is_fatal_ends_the_run_with_status_10(core: Core, rule: str, how: str) -> None:
    done = run(*CORE, "--repo", core.repository, "bad", "misbehave", how, "--pids", core.pids, status=10)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert core.names() == ([], [])


def test_store_publish_and_read_back(core: Core) -> None:
    """P-7, P-13, P-15, P-16, P-18, P-21, P-27, P-32."""
    first, again, has = core.do(
        ["write", "a", "hello"],
        call("object.put", files=[{"name": "a"}, {"name": "absent"}]),
        ["write", "b", "hello"],
        call("object.put", files=[{"name": "b", "size": 5}]),
        call("object.has", ids=[NOWHERE]),
    )
    hello, refused = first["objects"]
    assert (hello["size"], len(hello["id"]), "error" in refused) == (5, 64, True)
    assert again["objects"] == [{"id": hello["id"], "size": 5, "stored": "present"}]
    assert has == {"present": [False]}
    dump = ROOT + f"/file 5 100644 1 0 0 0 0.0 {hello['id'][:2]}/{hello['id'][2:]} - {hello['id']}\n"
    image, stream = core.do(
        ["write", "dump", dump],
        call("image.put", dump="dump"),
        ["write", "inline", "<>"],
        call("stream.put", content_type=KIND, inline="inline", chunks=[-1, 0, -1], object_refs=[hello["id"]]),
    )
    assert core.names() == ([], [])
    stream_row = {"name": "bad-1", "id": stream["id"]}
    ref_row = {"name": "bad/x", "target": "bad-1"}
    published, conflict, cat, whole, taken, listed = core.do(
        call("publish", streams=[stream_row], images=[{"id": image["id"], "ref": "bad/i"}], refs=[ref_row]),
        call("publish", refs=[{**ref_row, "name": "bad/y"}, {**ref_row, "expect": None}]),
        call("stream.cat", ref="bad/x", into="whole"),
        ["read", "whole"],
        call("stream.cat", ref="bad/x", into="whole"),
        call("image.objects", name="bad/i"),
    )
    assert published["streams"] == [{**stream_row, "previous": None}]
    assert published["refs"] == [{"name": "bad/x", "previous": None}]
    assert (conflict["data"]["kind"], cat, whole, taken["data"]["kind"]) == (
        "conflict",
        {"size": 7},
        "<hello>",
        "exists",
    )
    assert listed == {"ids": [hello["id"]]}
    assert core.names() == ([stream_row], [{**ref_row, "id": stream["id"]}])


def test_what_is_refused(core: Core) -> None:
    """P-9, P-12, P-14, P-18, P-19, P-20, P-21, P-22, P-23, P-24, P-31, P-43."""
    hello = core.do(["write", "a", "hello"], call("object.put", files=[{"name": "a"}]))[0]["objects"][0]["id"]
    dump = ROOT + f"/file 5 100644 1 0 0 0 0.0 {hello[:2]}/{hello[2:]} - {hello}\n"
    [image] = core.do(["write", "dump", dump], call("image.put", dump="dump"))
    assert core.kinds(
        call("telepathy"),
        call("object.has", ids=[NOWHERE] * 1001),
        call("object.has", ids=[NOWHERE.upper()]),
        call("object.has", ids=7),
        ["symlink", "/etc/passwd", "link"],
        call("image.digest", dump="link"),
        ["write", "bad", ROOT + "/a file 5\n"],
        call("image.digest", dump="bad"),
        ["write", "other", dump.replace(f"{hello[:2]}/", "zz/")],
        call("image.digest", dump="other"),
        call("stream.put", content_type=KIND, object_refs=[NOWHERE]),
        call("stream.put", content_type=KIND, named_refs=[["composefs.image", image["id"]]]),
        call("publish", streams=[{"name": "ostree-1", "id": hello}]),
        call("stream.list", **{"from": "/"}),
        call("image.mount", id=image["id"], path="/mnt"),
    ) == [
        *["unsupported", "too_large", "usage", "usage"],
        *["usage", "invalid", "invalid"],
        *["missing_object", "usage", "permission", "permission", "permission"],
    ]
    assert core.kinds(call("object.put", files=[]), command="read") == ["permission"]
    assert core.kinds(call("object.has", ids=[]), command="none") == ["permission"]


def test_what_an_extension_is_given(core: Core) -> None:
    """P-36, P-37, P-38: and the parameters of initialize."""
    welcome, environment, descriptors, (privileges, session, directory) = core.do(
        ["welcome"], ["environment"], ["descriptors"], ["status"]
    )
    assert 1 in welcome["versions"]
    assert welcome["repository"]["algorithm"] == "sha256"
    assert welcome["limits"]["unanswered"] >= 64
    assert welcome["limits"]["line"] >= 1 << 20
    assert not [name for name in environment if name.startswith(("LD_", "PYTHON"))]
    assert (descriptors, privileges, session, directory) == ([0, 1, 2], "1", True, welcome["staging"])


def test_objects_in_a_pack(core: Core) -> None:
    """P-45."""
    [welcome] = core.do(["welcome"])
    if "packs" not in welcome["features"]:
        return
    rows = [(0, 5), (5, 5), (9, 1), (10, 0), (10, 1), (-1, 1), (11, welcome["limits"]["range_bytes"] + 1)]
    files = [{"name": "p", "offset": offset, "size": size} for offset, size in rows]
    answer, pack, again = core.do(
        ["write", "p", "helloworld"],
        call("object.put", files=files),
        ["read", "p"],
        call("object.put", files=[{"name": "p", "offset": 5, "size": 5}]),
    )
    hello, world, overlaps, empty, *wrong = answer["objects"]
    assert (hello["size"], world["size"], empty["size"]) == (5, 5, 0)
    assert overlaps["error"]["kind"] == "usage"
    assert [row["error"]["kind"] for row in wrong] == ["corrupt", "usage", "too_large"]
    assert pack == "helloworld"
    assert again["objects"] == [{**world, "stored": "present"}]


def test_output_and_errors_reach_the_user(core: Core) -> None:
    """P-34, P-35."""
    steps = json.dumps([["notify", "output", {"text": "hello\n"}]])
    done = run(*CORE, "--repo", core.repository, "bad", "write", "--steps", steps)
    assert done.stdout == "hello\n"
    failed = run(
        *CORE, "--repo", core.repository, "bad", "misbehave", "answers-an-error", "--pids", core.pids, status=3
    )
    assert "no such thing" in failed.stderr
    assert "\x1b" not in failed.stderr


def test_a_result_too_long_for_a_message_is_printed_from_a_file(core: Core) -> None:
    """P-44."""
    [welcome] = core.do(["welcome"])
    if "result_file" not in welcome["features"]:
        return
    row = '{"name": "é \\\\ \\u00e9", "n": -1.5e3, "none": null},'
    steps = [["write-long", "result", '{"rows": [', row, 40_000, '{}], "status": 0}'], ["result-file", "result"]]
    command = [*CORE, "--repo", core.repository, "bad", "write", "--steps"]
    printed = json.loads(run(*command, json.dumps(steps), "--json").stdout)
    assert printed == {"rows": [*[json.loads(row[:-1])] * 40_000, {}], "status": 0}
    assert run(*command, json.dumps(steps)).stdout == ""
    for broken in (
        [["write", "result", '{"rows": [1, 2}']],
        [["write", "result", '{"rows": 9007199254740992}']],
        [["write", "result", '{"rows": ' + "[" * 32 + "]" * 32 + "}"]],
        [["write", "result", "[]"]],
        [["write", "result", "{}{}"]],
        [["write", "result", ""]],
        [["write", "true", "{}"], ["symlink", "true", "result"]],
        [["mkdir", "result"]],
        [],
    ):
        run(*command, json.dumps([*broken, ["result-file", "result"]]), "--json", status=10)
    run(*command, json.dumps([["result-file", "../../objects"]]), "--json", status=10)


def test_ctrl_c_ends_it_and_nothing_is_left(core: Core) -> None:
    """P-28, P-29."""
    argv = [*CORE, "--repo", str(core.repository), "bad", "misbehave", "patient", "--pids", str(core.pids)]
    with subprocess.Popen(argv, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not any((core.repository / "objects").iterdir()):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 130
    assert core.names() == ([], [])
