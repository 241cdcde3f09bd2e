"""Dumps without end or that come slowly, huge policies, and Ctrl-C at the wrong moment; by the installed commands."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from support.commands import CFSCTL, MKCOMPOSEFS, TIMEOUT, cfsctl, run, the_error
from support.commands import limit_memory as limit_to_little

DUMP = b"/ 0 40755 2 0 0 0 0.0 - - -\n/a 5 100644 1 0 0 0 0.0 - hello -\n"
COMMANDS = [
    (CFSCTL, "--no-repo", "compute-id", "--from-dump", "{}"),
    (MKCOMPOSEFS, "--print-digest-only", "--from-file", "{}"),
]


def limit_memory() -> None:
    """Four GiB: more than any dump may take, less than it takes to hurt the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dump_without_end_ends(command: tuple[str, ...]) -> None:
    refused = run(*[word.format("/dev/zero") for word in command], status=None, preexec_fn=limit_memory)
    assert refused.returncode in (1, 8)
    assert refused.stderr.count("\n") == 1
    assert "/dev/zero has more than 1073741824 bytes, too many for a dump" in refused.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dump_may_come_in_any_pieces_from_a_pipe(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(DUMP)
    expected = run(*[word.format(tmp_path / "dump") for word in command]).stdout
    assert run(*[word.format("-") for word in command], input=DUMP.decode()).stdout == expected
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    argv = [word.format(fifo) for word in command]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        with fifo.open("wb", buffering=0) as pipe:
            for byte in DUMP:
                pipe.write(bytes([byte]))
        assert process.communicate(timeout=TIMEOUT)[0] == expected


@pytest.mark.parametrize("arguments", [("images",), ()])
def test_ctrl_c_while_cfsctl_loads_has_no_traceback(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = run(CFSCTL, *arguments, status=-signal.SIGINT, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.stdout, done.stderr) == ("", "")


def with_policy(path: Path, *expressions: str) -> Path:
    """Make a small bootable tree whose SELinux policy has these expressions."""
    contexts = path / "etc/selinux/targeted/contexts/files"
    for each in (contexts, path / "usr", path / "sysroot", path / "boot"):
        each.mkdir(parents=True)
    (path / "etc/selinux/config").write_text("SELINUXTYPE=targeted\n")
    (contexts / "file_contexts").write_text("".join(f"{each} label\n" for each in expressions))
    return path


def test_a_policy_of_very_many_sets(tmp_path: Path) -> None:
    """Each set of nearly all bytes is four characters, and once took 8 KiB of memory."""
    tree = with_policy(tmp_path / "tree", *(f"/{number}{'[^a]' * 1000}" for number in range(150)))
    cfsctl("--no-repo", "compute-id", "--bootable", tree, preexec_fn=limit_to_little)


def test_a_policy_of_very_many_characters(tmp_path: Path) -> None:
    tree = with_policy(tmp_path / "tree", *(f"/{'x' * 4000}{number}" for number in range(600)))
    error = the_error("--no-repo", "compute-id", "--bootable", tree, status=8, preexec_fn=limit_to_little)
    assert "contexts/files/file_contexts, line 524: the expressions have more than 2097152 characters" in error
