"""The installed commands, as a user runs them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
CFSCTL = str(BIN / "cfsctl")
MKCOMPOSEFS = str(BIN / "mkcomposefs")

TIMEOUT = 1200
"""Seconds after which a command that hangs is killed; no promise about speed."""


def run(*argv: str | Path, status: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command, capture its output as text, and check its exit status (None: any)."""
    options.setdefault("timeout", TIMEOUT)
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        [str(word) for word in argv], capture_output=True, text=True, errors="surrogateescape", check=False, **options
    )
    if status is not None and done.returncode != status:
        raise AssertionError(
            f"{' '.join(map(str, argv))}\nexit status {done.returncode}, expected {status}\n{done.stdout}{done.stderr}"
        )
    return done


def cfsctl(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed cfsctl; see ``run``."""
    return run(CFSCTL, *arguments, **options)


def the_error(*arguments: str | Path, status: int, **options: Any) -> str:
    """Run cfsctl, which must fail with this status, say nothing on standard output and one line about why."""
    return one_line(cfsctl(*arguments, status=status, **options))


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the line that cfsctl has said about why it failed; it may have said nothing else."""
    assert done.stdout == ""
    assert done.stderr.startswith("cfsctl: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def wait_until_open(process: subprocess.Popen[Any], path: Path) -> None:
    """Return as soon as a command has a file or directory open."""
    opened = Path(f"/proc/{process.pid}/fd")
    while True:
        assert process.poll() is None, process.communicate()
        try:
            if any(os.readlink(each) == os.fspath(path) for each in opened.iterdir()):
                return
        except FileNotFoundError:  # one that was closed meanwhile
            pass
        time.sleep(0.001)


def limit_memory() -> None:
    """As ``preexec_fn``: give each process of a run 400 MiB of address space, plenty for all that is honest."""
    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))


def completions(*line: str) -> list[str]:
    """Return what bash is told that the last word of a command line of cfsctl can become."""
    environment = {
        **os.environ,
        "_CFSCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["cfsctl", *line]),
        "COMP_CWORD": str(len(line)),
    }
    return [word.split(",")[1] for word in cfsctl(env=environment).stdout.splitlines() if word]


def mkcomposefs(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed mkcomposefs; see ``run``."""
    return run(MKCOMPOSEFS, *arguments, **options)
