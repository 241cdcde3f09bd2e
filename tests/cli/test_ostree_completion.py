"""Refs and remotes of ostree commands as bash, zsh and fish complete them."""

from __future__ import annotations

import os
import pty
import re
import select
import time
from pathlib import Path

import pytest

from support.commands import BIN, TIMEOUT, completions, run
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary
from support.peers import require
from support.remotes import machine, remote

__all__ = ["extensions", "machine"]

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ostree")
    repo = make_repo(directory / "repo")
    commit(repo, make_tree(directory / "tree", files=1))
    update_summary(repo)
    return repo


@pytest.fixture
def filled(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    """A repository with the remote ``o``, its ref and a ref of our own."""

    def prepare(target: Target) -> None:
        remote(target, f"file://{source}")
        target.ostree("pull", "o", BRANCH)
        target.ostree("tag", f"o:{BRANCH}", "mine")

    target = Target.copied(tmp_path / "target", source.parent / "filled", prepare)
    remote(target, f"file://{source}")
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    return target


def by_bash(line: str, home: Path) -> set[str]:
    """What bash would put in place of the last word, or of what is behind its last colon or equals sign."""
    words = re.findall(r"[:=]|[^\s:=]+", line) + ([""] if line.endswith(" ") else [])
    script = f"""
        source <(cfsctl completion bash)
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
        COMP_CWORD={len(words) - 1}
        _cfsctl_completion cfsctl
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return set(run(require("bash"), "-c", script, cwd=home).stdout.split())


def by_fish(line: str, home: Path) -> set[str]:
    script = f"cfsctl completion fish | source; complete -C '{line}'"
    shown = run(require("fish"), "--no-config", "-c", script, cwd=home).stdout
    return {row.split("\t")[0] for row in shown.splitlines()}


def by_zsh(line: str, home: Path) -> set[str]:
    """The last word that zsh makes of the line."""
    start = 'autoload -Uz compinit; compinit -u -D; eval "$(cfsctl completion zsh)"'
    return {_typed([require("zsh"), "-f", "-i"], start, line, home)}


def by_readline(line: str, home: Path) -> str:
    """The last word that bash makes of the line, readline and its own completion of files included."""
    return _typed([require("bash"), "--norc", "--noprofile", "-i"], "source <(cfsctl completion bash)", line, home)


def _typed(shell: list[str], start: str, line: str, home: Path) -> str:
    """Type the line and Tab in a terminal; the line that the shell makes of it is all that there is."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(home)
        os.environ["TERM"] = "dumb"
        os.execv(shell[0], shell)
    try:
        os.write(fd, f"PS1=; {start}; echo rea''dy\n".encode())
        _read_until(fd, "ready\r\n")
        # Ctrl-A and echo: what the line has become is printed instead of run.
        os.write(fd, line.encode() + b"\t\x01echo '<\x05>'\n")
        shown = _read_until(fd, "<.*>\r\n")
    finally:
        os.close(fd)
        os.waitpid(pid, 0)
    return str(re.findall(r"<(.*)>\r\n", shown)[-1].split()[-1])


def _read_until(fd: int, end: str) -> str:
    text = ""
    deadline = time.monotonic() + TIMEOUT
    while not re.search(end, text):
        assert time.monotonic() < deadline, text
        if select.select([fd], [], [], 0.2)[0]:
            text += os.read(fd, 65536).decode(errors="replace")
    return text


def test_bash(filled: Target, tmp_path: Path) -> None:
    start = f"cfsctl --repo {filled.path} ostree"
    assert by_bash(f"{start} inspect m", tmp_path) == {"mine"}
    assert by_bash(f"{start} inspect ", tmp_path) == {"mine", f"o:{BRANCH}"}
    assert by_bash(f"{start} inspect o:t", tmp_path) == {BRANCH}
    assert by_bash(f"{start} inspect o:", tmp_path) == {BRANCH}
    assert by_bash(f"{start} remote show ", tmp_path) == {"o"}
    assert by_bash(f"{start} remote refs x", tmp_path) == set()


def test_bash_and_words_with_an_equals_sign(filled: Target, tmp_path: Path) -> None:
    """The repository counts however it is named, and behind the sign come values, and files."""
    start = f"cfsctl --repo={filled.path} ostree"
    assert by_bash(f"{start} inspect m", tmp_path) == {"mine"}
    assert by_bash(f"{start} inspect o:t", tmp_path) == {BRANCH}
    assert by_bash(f"{start} pull o --base-name=", tmp_path) == {"mine", f"o:{BRANCH}"}
    assert by_bash(f"{start} pull o --base-name=o:t", tmp_path) == {BRANCH}
    assert by_bash(f"{start} commit --sign-type=e", tmp_path) == {"ed25519"}
    (tmp_path / "rootfs").mkdir()
    assert by_readline("cfsctl --repo=roo", tmp_path) == "--repo=rootfs/"
    assert by_readline(f"{start} commit --tree=di", tmp_path) == "--tree=dir="
    assert by_readline(f"{start} commit --tree=dir=roo", tmp_path) == "--tree=dir=rootfs/"
    assert by_readline(f"{start} commit --tree dir=roo", tmp_path) == "dir=rootfs/"


def test_fish(filled: Target, tmp_path: Path) -> None:
    start = f"cfsctl --repo {filled.path} ostree"
    assert by_fish(f"{start} inspect o:t", tmp_path) == {f"o:{BRANCH}"}
    assert by_fish(f"{start} remote show ", tmp_path) == {"o"}
    assert by_fish(f"{start} commit --sign-type=e", tmp_path) == {"--sign-type=ed25519"}


def test_zsh(filled: Target, tmp_path: Path) -> None:
    start = f"cfsctl --repo {filled.path} ostree"
    assert by_zsh(f"{start} inspect m", tmp_path) == {"mine"}
    assert by_zsh(f"{start} inspect o:t", tmp_path) == {f"o:{BRANCH}"}
    assert by_zsh(f"{start} remote show ", tmp_path) == {"o"}
    assert by_zsh(f"{start} commit --sign-type=e", tmp_path) == {"--sign-type=ed25519"}


def test_which_refs_a_word_can_become(filled: Target) -> None:
    def words(*line: str) -> set[str]:
        return set(completions("--repo", str(filled.path), "ostree", *line))

    for command in (("pull",), ("pull-local", "--remote"), ("remote", "delete")):
        assert words(*command, "") == {"o"}, command
    for command in (("untag",), ("dump",), ("tag",), ("fsck",), ("compute-id",), ("export",), ("pull", "o")):
        assert words(*command, "") == {"mine", f"o:{BRANCH}"}, command
    assert words("pull", "o", "--base-name", "m") == {"mine"}
