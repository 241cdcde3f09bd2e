"""Interrupting a pull: it ends soon, names nothing, and leaves neither processes nor files."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from support.commands import CFSCTL, TIMEOUT
from support.interrupting import Interrupted
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.server import Fault, serve

pytestmark = pytest.mark.usefixtures("extensions")


def processes_in(directory: Path) -> list[int]:
    """Processes whose working directory is below this one; an extension's and its workers' is staging."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(directory):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("pattern", ["/config", "*.dirtree", "*.filez"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_pull_leaves_nothing(tmp_path: Path, pattern: str, number: int) -> None:
    make_tree(tmp_path / "tree")
    source = make_repo(tmp_path / "source")
    commit(source, tmp_path / "tree")
    target = Target(tmp_path / "target")
    with serve(source) as server:
        server.fault(pattern, Fault(stall=True, keep=3))
        argv = [CFSCTL, "--repo", target.path, "ostree", "pull", server.url, BRANCH]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + TIMEOUT
            while not server.count(pattern):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert processes_in(target.path)
            process.send_signal(number)
            out, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 128 + number
        assert out == b""
        assert processes_in(target.path) == []
        assert target.left_over() == []
        assert target.names() == {}
        server.forgive()
        target.ostree("pull", server.url, BRANCH)


def pulled(directory: Path) -> tuple[Path, Target]:
    """Return an archive with a commit, and a repository that has pulled it."""
    make_tree(directory / "tree")
    source = make_repo(directory / "source")
    commit(source, directory / "tree")
    target = Target(directory / "target")
    target.ostree("pull-local", source, BRANCH)
    return source, target


@pytest.mark.parametrize("kind", [fcntl.F_WRLCK, fcntl.F_RDLCK], ids=["alone", "shared"])
def test_waiting_for_the_lock_of_a_repository(tmp_path: Path, kind: int) -> None:
    """One that is shared keeps an export from ref and summary, which it writes alone."""
    out, target = pulled(tmp_path)
    lock = os.open(out / ".lock", os.O_RDWR)
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
    run = Interrupted(tmp_path / "log", "--repo", target.path, "ostree", "export", BRANCH, out, trace="fcntl")
    while "EAGAIN" not in run.log.read_text():
        assert run.process.poll() is None
    assert run.end() == "cfsctl: extension ostree was interrupted\n"
    os.close(lock)


def test_waiting_for_a_passphrase(tmp_path: Path) -> None:
    _, target = pulled(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gpg").write_text("#!/bin/sh\nexec sleep 3600\n")
    (tmp_path / "bin/gpg").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    words = ["--repo", target.path, "ostree", "sign", BRANCH, "--gpg-sign=0123456789ABCDEF"]
    run = Interrupted(tmp_path / "log", *words, trace="execve", env=environment)
    while '["sleep"' not in run.log.read_text():
        assert run.process.poll() is None
    assert run.end() == "cfsctl: extension ostree was interrupted\n"
    assert processes_in(target.path) == []
    assert target.left_over() == []


@pytest.mark.parametrize("option", ["--tree=tar", "--from-dump", "--body-file", "--statoverride"])
@pytest.mark.parametrize("writer", ["nobody", "silent"])
def test_waiting_for_what_comes_by_a_named_pipe(tmp_path: Path, option: str, writer: str) -> None:
    target = Target(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    ours = os.open(tmp_path / "pipe", os.O_RDWR) if writer == "silent" else -1
    (tmp_path / "tree").mkdir()
    words = ["ostree", "commit", f"{option}={tmp_path / 'pipe'}", f"--tree=dir={tmp_path / 'tree'}", "--branch=main"]
    run = Interrupted(tmp_path / "log", "--repo", target.path, *words, trace="openat")
    while not re.search(r'/pipe", O_RDONLY\|(?!.*O_PATH)', run.log.read_text()):  # the core opens it by O_PATH
        assert run.process.poll() is None
    assert run.end() == "cfsctl: extension ostree was interrupted\n"
    if ours >= 0:
        os.close(ours)
    assert target.left_over() == []
