"""Dumps without end or that come slowly, and Ctrl-C at the wrong moment; by the installed commands."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from support.commands import CFSCTL, MKCOMPOSEFS, TIMEOUT, run

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
