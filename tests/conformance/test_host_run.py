"""A run: messages and their order, what the user sees, and the process that the extension is."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from composefs.errors import PermissionDeniedError, ProtocolError, TooLargeError
from composefs.ext.options import RunOptions, Stdio
from composefs.linux import landlock
from composefs.protocol.limits import Limits
from support.calls import HELLO, call, kind_of, stored_stream
from support.commands import cfsctl
from support.hosting import Host


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


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({}, "give exactly one of text, file"),
        ({"text": 7}, "text is not a string"),
        ({"file": "missing"}, "there is no staged file missing"),
        ({"file": "../x"}, "file: '../x' is not the name of a staged file"),
    ],
    ids=["nothing", "number", "missing", "outside"],
)
def test_output_that_is_none_does_not_end_well(host: Host, params: dict[str, Any], reason: str) -> None:
    """P-34: it has no answer, and the user asked for it, but for --json."""
    steps = json.dumps([["notify", "output", params]])
    with pytest.raises(ProtocolError, match=f"^extension bad gave output that is none: {re.escape(reason)}$"):
        host.run("write", {"steps": steps})
    assert host.run("write", {"steps": steps}, options=RunOptions(json=True)).status == 0


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


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_without_a_home_there_is_no_cache(host: Host, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("HOME")
    if home is not None:
        monkeypatch.setenv("HOME", home)
    [welcome] = host.do(["welcome"])
    assert welcome["cache"] is None


def test_each_repository_has_a_cache_of_its_own(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    long = "/".join(["long" * 50] * 2)
    names = ["a/b", "a%2Fb", "a%252Fb", "a\nb", f"{long}/1", f"{long}/2"]
    caches = []
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        host.path = host.path.rename(path)
        [welcome] = host.do(["welcome"])
        caches.append(welcome["cache"])
    assert len({os.path.realpath(cache) for cache in caches}) == len(names)
    assert {Path(cache).parent for cache in caches} == {tmp_path / "cache/composefs/ext/bad"}


def test_no_file_is_larger_than_staging_and_no_memory_is_left_on_the_disk(host: Host) -> None:
    """P-17: staging is counted once a second only."""
    assert host.do(["limits"], limits=Limits(staging_bytes=1 << 20)) == [[1 << 20, 0]]


@pytest.mark.parametrize("has_landlock", [True, False])
def test_confinement(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_landlock: bool) -> None:
    """P-36: where the kernel has Landlock, only staging and the cache can be written, and TCP needs a permission."""
    if not has_landlock:
        monkeypatch.setattr(landlock, "abi", lambda: 0)
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
        result = host.run("write", {"steps": json.dumps(steps), "output": str(output)})
    _, *written, objects, elsewhere, connected = result.result["answers"]
    assert written == ["written"] * 3
    assert objects == elsewhere == ("Permission denied" if version else "written")
    assert connected == ("Permission denied" if version >= 4 else "Success")


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
        stdio=Stdio(their_in, their_out),
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
            host.do(command="stdio", stdio=Stdio(terminal))
        stream = stored_stream(host)
        [answer] = host.do(call("stream.cat", id=stream, stdout=True), stdio=Stdio(stdout=terminal))
        assert kind_of(answer) == "permission"
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_result_in_a_file_is_bounded_and_read_for_json_only(host: Host) -> None:
    """P-44: what is in it nobody has looked at yet."""
    steps = {"steps": json.dumps([["write", "result", '{"rows": []}'], ["result-file", "result"]])}
    as_json = RunOptions(json=True)
    result = host.run("write", steps, options=as_json)
    assert result.file is not None
    with result.file:
        assert result.file.read() == b'{"rows": []}'
    assert host.run("write", steps).file is None
    host.assert_nothing_left()
    with pytest.raises(TooLargeError, match="staged file result has 12 bytes, more than 11"):
        host.run("write", steps, options=as_json, limits=Limits(dump_bytes=11))


@pytest.mark.parametrize(("text", "status"), [('{"rows": []}', 0), ('{"rows": [', 10)], ids=["JSON", "no JSON"])
def test_a_result_in_a_file_is_looked_at_as_it_is_printed(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, status: int
) -> None:
    """P-44: it may be as long as it likes."""
    (installed / "long").write_text(
        "#!/usr/bin/env python3\n"
        "from talk import Extension\n"
        "class Long(Extension):\n"
        "    def welcome(self, message):\n"
        "        self.send(id=message['id'], result={'version': 1, 'features': ['result_file']})\n"
        "    def run(self):\n"
        f"        return {{'result_file': self.stage('result', {text!r})}}\n"
        "Long().main()\n"
    )
    (installed / "long").chmod(0o755)
    (installed / "long.json").write_text((installed / "good.json").read_text().replace("good", "long"))
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(installed))
    cfsctl("init", "--insecure", tmp_path / "repo")
    done = cfsctl("--repo", tmp_path / "repo", "long", "store", "--json", status=status)
    if status:
        assert done.stderr.startswith("cfsctl: extension long gave a result that is not JSON: ")
    else:
        assert json.loads(done.stdout) == {"rows": []}
