"""The sample in sh and jq: the protocol can be spoken without a library, as docs/protocol.md tells."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from composefs.errors import CancelledError, ComposefsError, CorruptError
from composefs.ext.options import RunOptions, Timeouts
from composefs.repository import Repository
from composefs.repository.adoption import Adoption
from support.commands import CFSCTL, cfsctl, run
from support.hosting import SAMPLES, Host
from support.peers import require

PAGE = Path(__file__).parents[2] / "docs/protocol.md"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    require("jq")
    (tmp_path / "hello.txt").write_text("hello\n")
    (tmp_path / "world.txt").write_text("world\n")
    return Host(tmp_path, monkeypatch, source=SAMPLES / "sh", name="shfetch")


def put(host: Host, *, strict: bool = False, **more: object) -> str:
    arguments = {"name": "greetings", "files": [str(host.path.parent / name) for name in ("hello.txt", "world.txt")]}
    result = host.run("put", arguments, options=RunOptions(directory=str(host.path.parent)), strict=strict, **more)
    stream: str = result.result["stream"]
    return stream


def content(host: Host) -> bytes:
    pieces: list[bytes] = []
    with Repository.open(host.path) as repository:
        name = repository.refs.read("shfetch/greetings", "flat")
        with repository.streams.open(repository.streams.resolve(name)) as reader:
            repository.streams.cat(reader, lambda piece: pieces.append(bytes(piece)))
    return b"".join(pieces)


def test_it_is_short() -> None:
    assert len((SAMPLES / "sh/shfetch").read_text().splitlines()) <= 60


@pytest.mark.parametrize("strict", [False, True])
def test_it_stores_two_files_and_publishes_a_stream_of_them(host: Host, strict: bool) -> None:
    stream = put(host, strict=strict)
    assert content(host) == b"files:\nhello\nworld\n"
    assert b"".join(host.recorder.outputs) == f"shfetch-greetings {stream}\n".encode()
    assert put(host, strict=strict) == stream
    host.assert_nothing_left()


def test_the_installed_command(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    files = [host.path.parent / "hello.txt", host.path.parent / "world.txt"]
    done = cfsctl("--repo", host.path, "shfetch", "put", "greetings", *files)
    assert re.fullmatch(r"shfetch-greetings [0-9a-f]{64}\n", done.stdout)
    assert done.stderr == ""
    as_json = cfsctl("--repo", host.path, "shfetch", "put", "greetings", *files, "--json")
    assert json.loads(as_json.stdout) == {"stream": done.stdout.split()[1]}
    assert content(host) == b"files:\nhello\nworld\n"
    host.assert_nothing_left()


@pytest.mark.root
def test_attributes_of_a_staged_file_that_may_not_be_written(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken from it, by who is not root too."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    script = (host.search / "shfetch").read_text()
    copy = 'cp -- "$file" "file$((n += 1))"'
    assert script.count(copy) == 1
    with_attributes = f"{copy.replace('cp', 'cp --preserve=xattr')}; chmod 444 file$n"
    (host.search / "shfetch").write_text(script.replace(copy, with_attributes))
    files = [host.path.parent / "hello.txt", host.path.parent / "world.txt"]
    os.setxattr(files[0], "user.mine", b"x")
    run("setpriv", "--bounding-set=-all", CFSCTL, "--repo", host.path, "shfetch", "put", "greetings", *files)
    assert content(host) == b"files:\nhello\nworld\n"
    assert [os.listxattr(path) for path in host.path.glob("objects/*/*")] == [[]] * 3
    host.assert_nothing_left()


def test_the_same_file_twice(host: Host) -> None:
    (host.path.parent / "world.txt").write_text("hello\n")
    put(host)
    assert content(host) == b"files:\nhello\nhello\n"


def test_a_file_that_cannot_be_copied_is_told_of_though_a_later_one_can(host: Host) -> None:
    (host.path.parent / "hello.txt").unlink()
    with pytest.raises(ComposefsError, match=r"cannot stat '.*/hello\.txt': No such file or directory"):
        put(host)
    with Repository.open(host.path) as repository:
        assert repository.refs.read("shfetch/greetings", "flat") is None
    host.assert_nothing_left()


def test_a_rejected_row_becomes_its_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(_: object, name: str, **expected: object) -> None:
        raise CorruptError(f"the staged file {name!r} is not to our taste", hint="another one")

    monkeypatch.setattr(Adoption, "take", reject)
    with pytest.raises(CorruptError, match="the staged file 'file1' is not to our taste; the staged file 'file2'"):
        put(host)
    host.assert_clean()


def test_a_refused_call_becomes_its_error(host: Host) -> None:
    with pytest.raises(ComposefsError, match="publish: ") as caught:
        host.run("put", {"name": "a/../b", "files": [str(host.path.parent / "hello.txt")]})
    assert caught.value.kind == "invalid"
    host.assert_clean()


@pytest.mark.parametrize("method", ["object.put", "stream.put"])
def test_a_cancel_between_answers(host: Host, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """The core is interrupted while it serves a call: the cancel and the answer arrive one after the other."""
    import os
    import signal

    from composefs.ext.calls import CALLS, Call
    from composefs.ext.context import Context
    from composefs.protocol.wire import Message

    original = CALLS[method]

    def interrupted(context: Context, params: Message) -> Message:
        os.kill(os.getpid(), signal.SIGINT)
        return original.function(context, params)

    monkeypatch.setitem(CALLS, method, Call(interrupted, original.repository, original.stores))
    with pytest.raises(CancelledError):
        put(host, timeouts=Timeouts(initialize=60, terminate=600, kill=600))
    host.assert_clean()


def test_transcript_on_the_page_is_what_happens(host: Host) -> None:
    put(host)
    lines = []
    for direction, line in host.recorder.traces:
        line = re.sub(r"\b([0-9a-f]{4})[0-9a-f]{60}\b", r"\1…", line)
        line = re.sub(r"/staging/[0-9a-f]+/", "/staging/7c1f/", line)
        line = re.sub(r'"cache":"[^"]*"', '"cache":"/home/u/.cache/composefs/ext/shfetch/srv%2Frepo.sha256"', line)
        line = line.replace(str(host.path), "/srv/repo").replace(str(host.path.parent), "/home/u")
        lines.append(f"{'>' if direction == '->' else '<'} {line}\n")
    page = PAGE.read_text()
    transcript = page[page.index("## A complete conversation") :]
    assert "".join(lines) == transcript.split("```\n")[1]


def test_a_run_does_without_the_slow_imports(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """jsonschema and requests take 90 ms each: a run may load neither, nor anything that fetches."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(host.search))
    file = host.path.parent / "hello.txt"
    command = ["--repo", str(host.path), "shfetch", "put", "greetings", str(file)]
    done = run(sys.executable, "-X", "importtime", CFSCTL, *command)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "composefs.ext.calls.objects" in imported
    assert not imported & {"jsonschema", "requests", "http.client", "asyncio", "subprocess"}
