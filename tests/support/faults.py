"""System calls that fail, or kill the process, as strace injects them: nothing in the product knows of it.

A scenario is a command on a repository made anew for each fault.  ``calls`` lists the system calls of the undisturbed
command that change the repository; then each of them fails in a run of its own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from support import peers
from support.commands import CFSCTL, TIMEOUT

CHANGING = (
    "write", "pwrite64", "copy_file_range", "ftruncate", "fchmod", "linkat", "renameat", "renameat2", "symlinkat",
    "unlinkat", "mkdirat", "fsync", "fdatasync", "syncfs",
)  # fmt: skip
"""What changes a repository, or makes a change durable.  Files are made without a name, and named by linkat."""

FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")


class Call(NamedTuple):
    """The ``number``-th call, from 1, of a system call in the command."""

    name: str
    number: int


def calls(repository: Path, command: Sequence[str | Path], log: Path) -> list[Call]:
    """Run a command undisturbed and return those of its calls that concern the repository."""
    _strace(command, log, "-e", f"trace={','.join(CHANGING)}")
    counts: dict[str, int] = {}
    found = []
    for line in log.read_text().splitlines():
        match = re.match(r"(\w+)\(", line)
        if match is None:
            continue
        name = match[1]
        counts[name] = counts.get(name, 0) + 1
        if str(repository) in line:
            found.append(Call(name, counts[name]))
    return found


def inject(
    fault: str, call: Call, command: Sequence[str | Path], log: Path
) -> tuple[subprocess.CompletedProcess[str], bool]:
    """Run a command one of whose calls fails; tell also whether it came to that call."""
    what = f"inject={call.name}:{fault}:when={call.number}"
    done = _strace(command, log, "-e", f"trace={call.name}", "-e", what)
    text = log.read_text()
    return done, "INJECTED" in text or "killed by SIGKILL" in text


def _strace(command: Sequence[str | Path], log: Path, *options: str) -> subprocess.CompletedProcess[str]:
    peers.require("strace")
    argv = ["strace", "-qq", "-y", "-o", str(log), *options, CFSCTL, *map(str, command)]
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
