"""What happens on a terminal, and when the user or the system stops a command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from composefs import dumpfile, erofs
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, StreamName
from composefs.splitstream import Parts
from support.commands import BIN, CFSCTL, TIMEOUT, cfsctl
from support.peers import require
from support.terminal import on_terminal

LARGE = 1 << 29
"""Bytes of a sparse file that takes long enough to digest that a signal comes in between."""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    cfsctl("init", "--insecure", "--algorithm", "fsverity-sha512-12", tmp_path / "repo")
    return tmp_path / "repo"


@pytest.fixture
def slow_tree(tmp_path: Path) -> Path:
    """Make a tree of one large file."""
    (tmp_path / "tree" / "usr").mkdir(parents=True)
    with (tmp_path / "tree" / "usr" / "large").open("wb") as large:
        large.truncate(LARGE)
    return tmp_path / "tree"


def with_more(tree: Path, number: int) -> None:
    """Give the tree so many more files that are as large."""
    for each in range(number):
        with (tree / "usr" / f"large{each}").open("wb") as large:
            large.truncate(LARGE)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_stopped_create_image_leaves_nothing(repo: Path, slow_tree: Path, number: int, status: int) -> None:
    with_more(slow_tree, 200)  # a minute's work
    before = {str(path) for path in repo.rglob("*")}
    process = subprocess.Popen(
        [CFSCTL, "--repo", repo, "--progress", "json", "create-image", slow_tree, "os"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b'"started"' in process.stderr.readline()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == status, stderr
    assert stdout == b""
    told = [line for line in stderr.splitlines() if not line.startswith(b"{")]  # how far it had come before
    assert told == [b"cfsctl: interrupted" if number == signal.SIGINT else b"cfsctl: terminated"]
    after = {str(path) for path in repo.rglob("*") if path.name != "staging"}
    assert after <= before, "a file without a name is no file"
    cfsctl("--repo", repo, "images")


def test_nohup_survives_a_hangup(tmp_path: Path) -> None:
    read, write = os.pipe()
    process = subprocess.Popen(
        [CFSCTL, "--no-repo", "compute-id", "--from-dump", "-"],
        stdin=read,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(read)
    process.send_signal(signal.SIGHUP)
    os.write(write, b"/ 0 40755 2 0 0 0 0.0 - - -\n")
    os.close(write)
    stdout, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert len(stdout) == 129


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_errors_without_colours(variable: str, value: str) -> None:
    """However early the error is found."""
    for wrong in (["--bogus"], ["bogus"], ["--user", "--system", "images"], ["--no-repo", "images"]):
        assert b"\x1b[" in on_terminal(*wrong)[1]
        assert b"\x1b[" not in on_terminal(*wrong, **{variable: value})[1]
    assert b"\x1b[" in on_terminal("--color", "always", "--user", "--system", "images", **{variable: value})[1]


def test_bars_come_and_go(repo: Path, slow_tree: Path, tmp_path: Path) -> None:
    def cost(tree: Path) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        cfsctl("--repo", repo, "compute-id", "--no-propagate-usr-to-root", tree)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # The bar comes after half a second: two are enough, with all processors, however fast they digest, and if a busy
    # machine has made the file look dearer than it is.
    (tmp_path / "nothing").mkdir()
    file = max(cost(slow_tree) - cost(tmp_path / "nothing"), 0.02)
    with_more(slow_tree, int(2 * len(os.sched_getaffinity(0)) / file) + 1)
    status, shown = on_terminal("--repo", repo, "compute-id", slow_tree)
    assert status == 0
    assert "━".encode() in shown, "a bar"
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is back"
    assert len(shown.split(b"\n")[-2].strip().rpartition(b"\x1b[2K")[2]) >= 128, "the id is alone on its line"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
@pytest.mark.parametrize(
    "command",
    [("mkcomposefs", "--from-file", "-", "/dev/null"), ("cfsctl", "--no-repo", "compute-id", "--from-dump", "-")],
    ids=["mkcomposefs", "cfsctl"],
)
def test_whoever_stops_it_gets_the_cursor_back(command: tuple[str, ...], number: int, tmp_path: Path) -> None:
    """While it waits for a dump to be typed."""

    def look(shown: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):  # of a signal that was sent already
            if b"\x1b[?25l" in shown:
                os.kill(int((tmp_path / "pid").rename(tmp_path / "sent").read_text()), number)

    name, *arguments = command
    script = 'echo $$ > "$0"; exec "$@"'
    status, shown = on_terminal("-c", script, tmp_path / "pid", BIN / name, *arguments, program="sh", look=look)
    assert status == 128 + number
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is back"


@pytest.mark.parametrize(
    "command",
    [
        "mkcomposefs --from-file DUMP IMAGE",
        "composefs-info measure-file DUMP",
        "cfsctl --no-repo compute-id --from-dump DUMP",
    ],
)
def test_where_no_thread_may_be_started_the_work_is_done_without_a_bar(command: str, tmp_path: Path) -> None:
    (tmp_path / "dump").write_text("/ 0 40755 2 0 0 0 0.0 - - -\n")
    paths = {"DUMP": tmp_path / "dump", "IMAGE": tmp_path / "image"}
    name, *words = command.split()
    refused = ("-e", "trace=clone,clone3", "-e", "inject=clone,clone3:error=EAGAIN", "-e", "signal=none")
    arguments = [paths.get(word, word) for word in words]
    strace = ("-qqq", "-o", tmp_path / "log", *refused)
    status, shown = on_terminal(*strace, BIN / name, *arguments, program=require("strace"))
    assert status == 0, shown
    assert b"Traceback" not in shown
    assert "(INJECTED)" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    "command",
    ["mkcomposefs --threads=2 --print-digest-only", "cfsctl --no-repo compute-id --no-propagate-usr-to-root"],
)
def test_the_thread_of_the_bar_comes_after_the_processes(command: str, slow_tree: Path, tmp_path: Path) -> None:
    """What is forked should have no threads; on one processor, cfsctl forks nothing."""
    name, *words = command.split()
    strace = ("-qqq", "-o", tmp_path / "log", "-e", "trace=clone,clone3", "-e", "signal=none")
    status, shown = on_terminal(*strace, BIN / name, *words, slow_tree, program=require("strace"))
    assert status == 0, shown
    threads = ["CLONE_THREAD" in call for call in (tmp_path / "log").read_text().splitlines()]
    assert threads[-1], "a bar"
    assert threads == sorted(threads)


SLOW_EXTENSION = f"""#!{sys.executable}
import os
import time
from composefs_ext import main

def handler(request, core):
    bar = core.progress("fetching\\x1b]0;owned\\x07 things", total=4, unit="items")
    for number in range(4):
        # Whatever keeps the core from looking: what was sent so far has been seen, before that grows old.
        core.send("log", {{"level": "debug", "message": "seen"}}).result()
        time.sleep(0.4)
        while number == 3 and not os.path.exists("GO ON"):
            time.sleep(0.01)
        bar.advance(1)
    core.output("all done\\x1b[31m\\n")
    bar.finish()
    return {{"count": 4}}

main(handler)
"""


@pytest.fixture
def slow_extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install an extension whose command takes long enough for a bar; return the file that lets it end."""
    manifest = {
        "name": "slow",
        "summary": "Take a while.",
        "version": "1",
        "protocol": [1],
        "commands": [{"name": ["go"], "summary": "Go.", "repository": "none"}],
    }
    (tmp_path / "ext").mkdir()
    (tmp_path / "ext" / "slow").write_text(SLOW_EXTENSION.replace("GO ON", str(tmp_path / "go on")))
    (tmp_path / "ext" / "slow").chmod(0o755)
    (tmp_path / "ext" / "slow.json").write_text(json.dumps(manifest))
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(tmp_path / "ext"))
    return tmp_path / "go on"


def test_an_extension_s_progress_as_bars(slow_extension: Path) -> None:
    status, shown = on_terminal("slow", "go", look=lambda shown: slow_extension.touch() if b"3/4" in shown else None)
    assert status == 0
    assert "━".encode() in shown
    assert b"fetching" in shown
    assert b"3/4" in shown
    assert b"\x1b]0;" not in shown
    assert b"\x1b[31mall" not in shown
    last = shown[shown.index(b"all done") :]
    assert last.startswith(b"all done\r\n"), "the bars have made room"


def test_an_extension_s_progress_as_json_lines_and_in_a_log(slow_extension: Path) -> None:
    slow_extension.touch()
    done = cfsctl("--progress", "json", "slow", "go")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["kind"] for event in events][:2] == ["started", "progress"]
    assert events[-1]["kind"] == "done"
    assert {event["event"] for event in events} == {"progress"}
    assert done.stdout == "all done\x1b[31m\n", "byte for byte where no terminal is"
    first, *_, last = cfsctl("-v", "slow", "go").stderr.splitlines()
    assert first.startswith("fetching")
    assert first.endswith("things: started 0/4")
    assert last.endswith("things: done 4/4")
    assert cfsctl("slow", "go").stderr == ""


def test_no_bars_when_quiet(repo: Path, slow_tree: Path) -> None:
    status, shown = on_terminal("-q", "--repo", repo, "compute-id", slow_tree)
    assert status == 0
    assert b"\x1b" not in shown


def test_raw_bytes_are_kept_from_a_terminal(repo: Path) -> None:
    with Repository.open(repo, writable=True) as opened:
        stream = opened.streams.put(Parts(1, b"\x1b[31mraw", [-8]))
        opened.publish(Publication(streams=[StreamName("some", stream.id)]))
    status, shown = on_terminal("--repo", repo, "cat", "some")
    assert status == 2
    assert b"[31mraw" not in shown
    assert b"redirect" in shown
    assert shown.count(b"\n") == 1
    assert cfsctl("--repo", repo, "cat", "some").stdout == "\x1b[31mraw"


def test_an_image_is_not_read_from_a_terminal(repo: Path) -> None:
    status, shown = on_terminal("--repo", repo, "import-image", "os/1", NO_COLOR="1")
    assert status == 2
    assert b"standard input is a terminal (give the image there: cfsctl import-image REF < FILE)" in shown


def test_names_are_harmless_on_a_terminal(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    name = "evil\x1b]0;owned\x07name"
    cfsctl("--repo", repo, "create-image", "--no-propagate-usr-to-root", tmp_path / "empty", name)
    status, shown = on_terminal("--repo", repo, "images")
    assert status == 0
    assert b"evilname" in shown
    assert b"owned" not in shown
    status, shown = on_terminal("--repo", repo, "images", name)
    assert status == 2
    assert b"\x1b]" not in shown


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(repo: Path, redirection: str) -> None:
    """None of the repository's files gets their place, and a result that cannot be told is a failure."""
    meta = (repo / "meta.json").read_bytes()
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" --repo "$1" images {redirection}', CFSCTL, repo],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == (1 if ">&-" in redirection.replace("2>&-", "") else 0)
    assert "Traceback" not in done.stderr
    assert (repo / "meta.json").read_bytes() == meta


def test_a_reader_that_leaves_early_is_no_error(repo: Path) -> None:
    """Whether it leaves before or after cfsctl has written everything."""
    done = subprocess.run(
        ["sh", "-c", '"$0" --help | head -n 1', CFSCTL],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.stdout.startswith("Usage:")
    assert "Traceback" not in done.stderr


def test_sizes_are_in_bytes_for_scripts_and_in_larger_units_for_people(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "tree" / "usr").mkdir(parents=True)
    (tmp_path / "tree" / "usr" / "file").write_bytes(b"x" * 3_000_000)
    cfsctl("--repo", repo, "create-image", tmp_path / "tree", "os")
    cfsctl("--repo", repo, "ref", "remove", "--image", "os")
    command = ("--repo", repo, "gc", "--dry-run")
    count = json.loads(cfsctl(*command, "--json").stdout)["bytes_removed"]
    assert f"removed ({count} bytes)\n" in cfsctl(*command).stdout
    status, shown = on_terminal(*command)
    assert status == 0
    assert b"removed (2.9 MiB)\r\n" in shown
    assert cfsctl("--repo", repo, "du").stdout.endswith(f"garbage: 2 objects, {count} bytes\n")
    assert on_terminal("--repo", repo, "du")[1].endswith(b"garbage: 2 objects, 2.9 MiB\r\n")


def test_nothing_in_names_is_obeyed(repo: Path) -> None:
    """Control characters in one byte or two, and what turns the direction of reading."""
    names = ["\x9b31mred\x9b0m", "\x85", "\u202egnp", "\udc9b2J", "a\x1b[2J", "b\nstatus: ok"]
    lines = ["/ 0 40755 2 0 0 0 0.0 - - -"]
    escapes = ["".join(f"\\x{byte:02x}" for byte in os.fsencode(name)) for name in names]
    lines += [f"/{each} 0 100644 1 0 0 0 0.0 - - -" for each in escapes]
    with Repository.open(repo, writable=True) as repository:
        tree = dumpfile.parse("\n".join([*lines, ""]).encode(), repository.algorithm)
        image = repository.images.put(erofs.write(tree, version=1)).id
        refs = [name for name in names if name.isascii() or "\udc9b" not in name]
        repository.publish(Publication(images=[ImageName(image, f"os/{name}") for name in refs]))
    for name in names:
        os.symlink("nowhere", repo / "images/refs" / f"odd{name}")
    place = ("--repo", repo, "--color", "never")
    obeyed = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
    commands = [("ls", image), ("ls", "-l", image), ("dump-files", image, "/b\nstatus: ok"), ("images",), ("du",)]
    commands += [("ref", "list"), ("fsck",), ("gc", "--dry-run")]
    for command in commands:
        _, shown = on_terminal(*place, *command)
        text = shown.decode().replace("\r\n", "\n")
        assert not obeyed.search(text), (command, text)
        assert "\nstatus: ok" not in text, (command, text)
    for command in (("ls", "--json", image), ("ref", "list", "--json"), ("fsck", "--json")):
        _, shown = on_terminal(*place, "--quiet", *command)
        assert not obeyed.search(shown.decode().replace("\r\n", "\n")), (command, shown)
    listed = json.loads(cfsctl(*place, "ls", "--json", image).stdout)
    assert {each["name"] for each in listed["entries"]} == set(names)
