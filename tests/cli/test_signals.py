"""Signals at odd moments: before the work begins, when it has ended already, and in the middle of making a class."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import click
import pytest

from composefs import errors
from composefs.cli import text
from support.commands import BIN, TIMEOUT, cfsctl
from support.peers import require

_CODE = """
import os, signal, sys
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)  # whoever has them ignored here
from composefs.cli import main
def ask_again(*_):
    os.kill(os.getpid(), {number})
main.{place} = ask_again
sys.argv = ["cfsctl", {argument!r}]
main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
@pytest.mark.parametrize(("place", "argument"), [("report", "no-such-command"), ("settle", "--version")])
def test_it_ends_the_process_without_a_traceback(number: signal.Signals, place: str, argument: str) -> None:
    code = _CODE.format(number=int(number), place=place, argument=argument)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.stderr == ""
    assert done.returncode == -number


TOOLS = {
    "mkcomposefs": ["--from-file"],
    "composefs-info": ["ls"],
    "mount.composefs": ["-o", "basedir=/nonexistent"],
}


def interrupted(
    file: str | Path, *command: str | Path, number: signal.Signals = signal.SIGINT, ignored: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run an installed command that gets a signal when it opens a file."""
    strace = [require("strace"), "-qqq", "-o", "/dev/null", "-P", str(file)]
    inject = ["-e", "trace=openat", "-e", "signal=none", "-e", f"inject=openat:signal={number.value}"]
    return subprocess.run(
        [*strace, *inject, BIN / command[0], *command[1:]],
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@pytest.mark.parametrize(
    ("command", "module"),
    [("cfsctl", click), ("cfsctl", errors), *((tool, each) for tool in TOOLS for each in (argparse, errors))],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_while_a_command_is_loaded_ctrl_c_ends_it_without_a_word(command: str, module: ModuleType) -> None:
    file = module.__spec__.cached
    done = interrupted(file, command, "--help")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    done = interrupted(file, command, "--help", ignored=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.lower().startswith(f"usage: {command} ")


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
@pytest.mark.parametrize("tool", TOOLS)
def test_it_interrupts_the_work_of_a_tool(
    tool: str, number: signal.Signals, status: int, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    done = interrupted(file, tool, *TOOLS[tool], file, tmp_path / "other", number=number)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"{tool}: {told}\n")
    assert list(tmp_path.iterdir()) == [file]
    done = interrupted(file, tool, *TOOLS[tool], file, tmp_path / "other", number=number, ignored=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tool}: ")
    assert done.stderr != f"{tool}: {told}\n"


@pytest.mark.parametrize("tool", TOOLS)
def test_ctrl_c_while_a_tool_tells_an_error_is_told_no_more(tool: str) -> None:
    done = interrupted(text.__spec__.cached, tool, "--no-such-option")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


_IN_A_CLASS = """
import os, signal, sys
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)  # whoever has them ignored here
from composefs.cli import main
class Field:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), {number})
main.root.invoke = lambda _: type("Names", (), {{"field": Field()}})
sys.argv = ["cfsctl", "images"]
from composefs.cli.start import main
main()
"""


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_while_a_class_is_made_it_is_no_internal_error(number: int, status: int, told: str) -> None:
    """Python before 3.12 makes a RuntimeError of whatever a field of a class raises when it is told its name."""
    code = _IN_A_CLASS.format(number=number)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.stderr == f"cfsctl: {told}\n"
    assert done.returncode == status


_THREE_TIMES = """
import os, signal, sys
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)  # whoever has them ignored here
from composefs.cli import main
from composefs.ext.interrupts import Interrupts
def ask(_):
    with Interrupts():
        for _ in range(3):
            os.kill(os.getpid(), {number})
main.root.invoke = ask
sys.argv = ["cfsctl", "images"]
from composefs.cli.start import main
main()
"""

_AT_ONCE = """
import os, signal, sys
ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
for each in ASKING:
    signal.signal(each, signal.SIG_DFL)  # whoever has them ignored here
from composefs.cli import main
def send():
    for each in ASKING:
        os.kill(os.getpid(), each)
def ask(_):
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    send()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
    finally:
        send()
        print("cleaned up", flush=True)
main.root.invoke = ask
sys.argv = ["cfsctl", "images"]
from composefs.cli.start import main
main()
"""


def test_several_at_once_leave_time_to_clean_up() -> None:
    """As service managers send SIGTERM and SIGHUP to what is in a session that ends."""
    argv = [sys.executable, "-c", _AT_ONCE]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (129, "cleaned up\n", "cfsctl: terminated\n")


_WHILE_IT_IS_REAPED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever has it ignored here
wait = os.waitpid
def wait_and_ask(pid, options):
    ended = wait(pid, options)
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGINT)
    return ended
os.waitpid = wait_and_ask
sys.argv = ["cfsctl", "oci", "list-tags", "oci:nowhere"]
from composefs.cli.start import main
main()
"""


def test_an_impatient_user_does_not_keep_it_from_ending_an_extension() -> None:
    argv = [sys.executable, "-c", _WHILE_IT_IS_REAPED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "nowhere is not a directory" in done.stderr


_WHAT_CANNOT_BE_REAPED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # whoever has it ignored here
os.waitid = lambda *_: os.kill(os.getpid(), signal.SIGINT)  # as if it were traced by somebody, for ever
sys.argv = ["cfsctl", "oci", "list-tags", "oci:nowhere"]
from composefs.cli.start import main
main()
"""


def test_an_impatient_user_does_not_wait_for_an_extension_that_cannot_be_ended() -> None:
    argv = [sys.executable, "-c", _WHAT_CANNOT_BE_REAPED]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (130, "cfsctl: interrupted\n")


_IN_A_CALLBACK = """
import os, signal, sys, weakref
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)  # whoever has them ignored here
from composefs.cli import main
class Thing:
    pass
def ask(_):
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), {number}))
    del thing
    signal.pause()
main.root.invoke = ask
sys.argv = ["cfsctl", "images"]
from composefs.cli.start import main
main()
"""


@pytest.mark.parametrize("code", [_THREE_TIMES, _IN_A_CALLBACK], ids=["three-times", "in-a-callback"])
@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_it_is_told_as_what_it_is_and_not_lost(code: str, number: int, status: int, told: str) -> None:
    """Of an impatient user, and where Python ignores what a handler raises."""
    argv = [sys.executable, "-c", code.format(number=int(number))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (status, f"cfsctl: {told}\n")


_IN_A_CLASS_OF_A_TOOL = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from composefs.cli import composefs_info
class Field:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), signal.SIGINT)
composefs_info._COMMANDS["ls"] = lambda _: type("Names", (), {"field": Field()})
sys.argv = ["composefs-info", "ls", "image"]
from composefs.cli.start import composefs_info
sys.exit(composefs_info())
"""


def test_while_a_class_is_made_it_is_no_error_of_a_tool() -> None:
    argv = [sys.executable, "-c", _IN_A_CLASS_OF_A_TOOL]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stderr) == (130, "composefs-info: interrupted\n")


def test_what_a_killed_run_leaves_in_tmpdir_the_next_one_removes(environment: Path) -> None:
    """Commands that write nothing have their staging there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        listing = [BIN / "cfsctl", "oci", "list-tags", f"docker://127.0.0.1:{silent.getsockname()[1]}/name"]
        with subprocess.Popen(listing) as first:
            connections = [silent.accept()[0]]
            with subprocess.Popen(listing) as second:
                connections.append(silent.accept()[0])
                left = list((environment / "tmp").iterdir())
                first.kill()
                first.wait()
                third = subprocess.run(
                    [BIN / "cfsctl", "oci", "list-tags", "oci:nowhere"], capture_output=True, check=False
                )
                assert third.returncode == 3
                living = list((environment / "tmp").iterdir())
                second.terminate()
        for each in connections:
            each.close()
    assert len(left) == 2
    assert len(living) == 1
    assert living[0] in left
    assert list((environment / "tmp").iterdir()) == []


def _has_open(process: str, paths: set[Path]) -> bool:
    with suppress(FileNotFoundError):  # a descriptor that is closed meanwhile
        return not paths.isdisjoint(map(Path.readlink, Path(f"/proc/{process}/fd").iterdir()))
    return False


def test_ctrl_c_ends_the_check_of_large_objects(tmp_path: Path) -> None:
    """Holes take no place on the disk; those that are not vast are read, and so many take a quarter of an hour."""
    repository = tmp_path / "repo"
    subprocess.run([BIN / "cfsctl", "init", "--insecure", "--algorithm", "fsverity-sha256-12", repository], check=True)
    (repository / "objects/aa").mkdir()
    holes = {repository / "objects/aa" / f"{number:062x}" for number in range(1000)}
    for hole in holes:
        hole.touch()
        os.truncate(hole, 1 << 29)
    argv = [BIN / "cfsctl", "--repo", repository, "fsck"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers: list[str] = []
        while not any(_has_open(each, holes) for each in workers):
            assert process.poll() is None
            workers = children.read_text().split()
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told == "cfsctl: interrupted\n"
    assert not any(Path(f"/proc/{each}/fd").exists() for each in workers)


def test_who_starts_it_may_ignore_that_processes_end(tmp_path: Path) -> None:
    """As some supervisors do; it is inherited, and a process that ends is gone then before anybody waits for it."""

    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"content" * 1000)
    repository = ("--repo", tmp_path / "repo")
    cfsctl("init", "--insecure", tmp_path / "repo")
    for command in (["ostree", "commit", f"--tree=dir={tmp_path}/tree", "--branch=main"], ["fsck"]):
        assert cfsctl(*repository, *command, preexec_fn=ignore).stderr == ""
