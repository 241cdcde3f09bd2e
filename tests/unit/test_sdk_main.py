"""The SDK's ``main``: guarded descriptors, results, errors and ends, with real processes against the memory core."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from composefs_ext import Core, Request
from composefs_ext.errors import CancelledError, CorruptError, ExtError, NoSpaceError, TooLargeError, UnsupportedError
from composefs_ext.fsverity import fsverity_digest
from composefs_ext.testing import MemoryCore


@pytest.fixture
def core(tmp_path: Path) -> MemoryCore:
    return MemoryCore(tmp_path)


def program(tmp_path: Path, body: str) -> list[str]:
    """Write an extension whose handler has this body; return the command to start it."""
    path = tmp_path / "extension.py"
    path.write_text(
        "import os, sys, subprocess, composefs_ext\nfrom composefs_ext import errors\ndef handler(request, core):\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
        + "\ncomposefs_ext.main(handler)\n"
    )
    return [sys.executable, str(path)]


def store(request: Request, core: Core) -> dict[str, Any]:
    """An extension in ten lines: store a file and a stream of it, and publish them."""
    name = core.staging.write(request.arguments["content"].encode())
    [stored] = core.object_put([{"name": name}]).result()
    inline = core.staging.write(b"head")
    stream = core.stream_put("00000000000000aa", chunks=[-4, 0], object_refs=[stored["id"]], inline=inline).result()
    core.publish(
        streams=[{"name": "test-1", "id": stream["id"]}], refs=[{"name": "test/main", "target": "test-1"}]
    ).result()
    with core.progress("storing", total=1) as progress:
        progress.advance()
    core.output(f"stored {stored['id']}\n")
    return {"stream": stream["id"]}


def test_a_whole_run(core: MemoryCore) -> None:
    result = core.run(store, ["store"], {"content": "body"})
    assert core.objects == {fsverity_digest(b"body"): b"body"}
    assert core.refs == {"test/main": "test-1"}
    assert core.stream_names == {"test-1": result["stream"]}
    assert core.output == f"stored {fsverity_digest(b'body')}\n"
    kinds = [message["kind"] for kind, message in core.events if kind == "progress"]
    assert kinds in (["started", "done"], ["started", "progress", "done"])  # by the time that it took

    def read(request: Request, core: Core) -> dict[str, Any]:
        stream = core.stream_get(ref="test/main", inline=True, chunks=True, object_refs=True).result()
        assert stream.inline is not None
        return {
            "inline": core.staging.read(stream.inline).decode(),
            "chunks": stream.chunks,
            "refs": stream.object_refs,
            "listed": core.stream_list("test-").result(),
        }

    answer = core.run(read, ["read"])
    listed = [{"name": "test-1", "id": result["stream"]}]
    assert answer == {"inline": "head", "chunks": [-4, 0], "refs": [fsverity_digest(b"body")], "listed": listed}


class OlderCore(MemoryCore):
    """A core that offers no features."""

    def _initialize(self) -> dict[str, Any]:
        return {**super()._initialize(), "features": []}


def test_what_a_run_leaves_in_staging_does_not_meet_the_next_one(core: MemoryCore) -> None:
    def leave(_request: Request, core: Core) -> dict[str, Any]:
        return {"name": core.staging.write(b"left")}

    assert core.run(leave, ["leave"]) == core.run(leave, ["leave"])
    assert list(core.staging.iterdir()) == []


def test_a_handler_gets_the_arguments_that_the_manifest_describes(tmp_path: Path) -> None:
    rows = [
        {"name": "name", "kind": "string", "required": True},
        {"name": "other", "kind": "string"},
        {"name": "times", "kind": "int", "default": 3},
        {"name": "force", "kind": "bool"},
    ]
    manifest = tmp_path / "test.json"
    manifest.write_text(json.dumps({"name": "test", "commands": [{"name": ["go"], "arguments": rows}]}))
    core = MemoryCore(tmp_path, manifest=manifest)

    def show(request: Request, _core: Core) -> dict[str, Any]:
        return dict(request.arguments)

    assert core.run(show, ["go"], {"name": "x"}) == {"name": "x", "times": 3, "force": False}
    assert core.run(show, ["go"], {"name": "x", "force": True, "times": 4, "other": "y"})["times"] == 4
    with pytest.raises(AssertionError, match="requires the arguments"):
        core.run(show, ["go"])
    with pytest.raises(AssertionError, match="has no arguments"):
        core.run(show, ["go"], {"name": "x", "none": 1})


def test_a_result_longer_than_a_message_travels_in_a_file(core: MemoryCore, tmp_path: Path) -> None:
    def handler(request: Request, core: Core) -> dict[str, Any]:
        return {"text": "é\udc80" * request.arguments["times"], "status": 1}

    for times in (3, 1 << 20):
        assert core.run(handler, ["show"], {"times": times}) == {"text": "é\udc80" * times, "status": 1}
    older = OlderCore(tmp_path / "older")
    assert older.run(handler, ["show"], {"times": 3})["status"] == 1
    with pytest.raises(TooLargeError, match="too long for this cfsctl"):
        older.run(handler, ["show"], {"times": 1 << 20})


def test_lists_longer_than_a_message_travel_in_files(core: MemoryCore) -> None:
    count = 2500

    def handler(request: Request, core: Core) -> dict[str, Any]:
        names = [core.staging.write(str(number).encode()) for number in range(count)]
        rows = core.object_put([{"name": name} for name in names]).result()
        ids = [row["id"] for row in rows]
        assert core.object_has([*ids, "ab" * 64]).result() == [True] * count + [False]
        assert core.object_has(ids[:2], sizes=[1, 7]).result() == [True, False]
        assert core.object_has(ids, sizes=[None] * count).result() == [True] * count
        stream = core.stream_put("00000000000000aa", chunks=range(count), object_refs=ids).result()
        read = core.stream_get(id=stream["id"], chunks=True, object_refs=True).result()
        assert (read.chunks, read.object_refs) == (list(range(count)), ids)
        assert core.stream_get(id=stream["id"], sizes=True).result().sizes == [len(str(each)) for each in range(count)]
        return {"left": len(list(Path(core.staging.path).iterdir()))}

    assert core.run(handler, ["x"]) == {"left": 0}
    assert len(core.objects) == count


def test_a_stray_print_and_a_child_do_not_reach_the_wire(core: MemoryCore, tmp_path: Path) -> None:
    argv = program(
        tmp_path,
        """
        print("stray")
        sys.stdout.flush()
        subprocess.run(["sh", "-c", "echo stray; cat"], check=True)
        os.write(1, b"stray")
        return {"read": sys.stdin.read(), "status": 1}
        """,
    )
    assert core.run_program(argv, ["x"]) == {"read": "", "status": 1}


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("raise errors.CorruptError('object ab is corrupt', hint='again')", CorruptError, "object ab is corrupt"),
        ("raise OSError(28, 'full', '/x')", NoSpaceError, "/x: No space left on device"),
        ("{}['x']", ExtError, "internal error: KeyError: 'x'"),
        ("import no_such_library", UnsupportedError, "a library cannot be loaded: No module named 'no_such_library'"),
        ("from composefs_ext.text import tabel", ExtError, "internal error: ImportError: cannot import name 'tabel'"),
        ("raise KeyboardInterrupt", CancelledError, "interrupted"),
        ("core.send('no.such.method').result()", UnsupportedError, "no.such.method"),
        ("core.send('no.such.method')", UnsupportedError, "no.such.method"),
    ],
)
def test_what_a_handler_raises_becomes_one_line(
    core: MemoryCore, tmp_path: Path, body: str, error: type[ExtError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        core.run_program(program(tmp_path, body), ["x"])
    assert "\n" not in str(caught.value)
    assert core.events == []


def test_the_traceback_of_a_defect_is_in_the_debug_log(core: MemoryCore, tmp_path: Path) -> None:
    with pytest.raises(ExtError, match="ZeroDivisionError"):
        core.run_program(program(tmp_path, "1 // 0"), ["x"], verbosity=2)
    [(kind, message)] = core.events
    assert (kind, message["level"]) == ("log", "debug")
    assert "extension.py" in message["message"]


def test_cancel_ends_the_run_and_nothing_is_published(core: MemoryCore) -> None:
    core.cancel_at = "stream.put"
    with pytest.raises(CancelledError):
        core.run(store, ["store"], {"content": "x"})
    assert core.refs == {}


def test_a_refusal_is_what_the_handler_sees(core: MemoryCore) -> None:
    core.refuse["publish"] = NoSpaceError("disk full", hint="free some")
    with pytest.raises(NoSpaceError, match="disk full"):
        core.run(store, ["store"], {"content": "x"})
    assert core.stream_names == {}


def test_a_failed_row_does_not_spoil_the_others(core: MemoryCore) -> None:
    def handler(request: Request, core: Core) -> dict[str, Any]:
        good = core.staging.write(b"good")
        files: Any = [{"name": "absent"}, {"name": good, "size": 4}]
        rows = core.object_put_each(files).result()
        return {"kind": rows[0]["error"]["kind"], "id": rows[1]["id"]}

    assert core.run(handler, ["x"]) == {"kind": "not_found", "id": fsverity_digest(b"good")}


def test_sigterm_cancels_the_handler(tmp_path: Path) -> None:
    argv = program(
        tmp_path,
        """
        import time
        try:
            core.log("info", "ready")
            time.sleep(60)
        except errors.CancelledError:
            core.log("info", "cleaned up")
            raise
        """,
    )
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        initialize = {"versions": [1], "staging": str(tmp_path), "limits": {}}
        for number, (method, params) in enumerate([("initialize", initialize), ("run", {"command": ["x"]})]):
            process.stdin.write(json.dumps({"id": number, "method": method, "params": params}).encode() + b"\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["version"] == 1
        assert json.loads(process.stdout.readline())["params"]["message"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.readline())["params"]["message"] == "cleaned up"
        assert json.loads(process.stdout.readline())["error"]["data"]["kind"] == "cancelled"
        process.stdin.close()
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_run_is_no_traceback(tmp_path: Path, number: signal.Signals) -> None:
    """Of somebody who sends it to the extension alone: Ctrl-C reaches the core."""
    command = program(tmp_path, "pass")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        initialize = {"id": 1, "method": "initialize", "params": {"versions": [1], "staging": str(tmp_path)}}
        process.stdin.write(json.dumps(initialize).encode() + b"\n")
        assert json.loads(process.stdout.readline())["result"]["version"] == 1
        process.send_signal(number)
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_an_end_of_input_ends_the_handler(core: MemoryCore, tmp_path: Path) -> None:
    argv = program(tmp_path, "while True: core.pump(None)")
    initialize = {"id": 1, "method": "initialize", "params": {"versions": [1], "staging": str(tmp_path)}}
    run = {"id": 2, "method": "run", "params": {"command": ["x"]}}
    lines = b"".join(json.dumps(message).encode() + b"\n" for message in (initialize, run))
    done = subprocess.run(argv, input=lines, capture_output=True, check=True)
    assert done.stderr == b""
    assert len(done.stdout.splitlines()) == 1


def test_a_core_of_the_future_is_told_what_we_speak(tmp_path: Path) -> None:
    line = json.dumps({"id": 1, "method": "initialize", "params": {"versions": [7], "staging": "/"}}).encode()
    done = subprocess.run(program(tmp_path, "pass"), input=line + b"\n", capture_output=True, check=True)
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "unsupported"


def test_rubbish_from_the_core_is_one_line_on_standard_error(tmp_path: Path) -> None:
    done = subprocess.run(program(tmp_path, "pass"), input=b"rubbish\n", capture_output=True, check=False)
    assert done.returncode == 10
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1


def test_starting_up_imports_nothing_slow() -> None:
    heavy = {"typing", "dataclasses", "subprocess", "hashlib", "json", "re", "enum"}
    code = f"import composefs_ext, sys; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
