"""ostree repositories for tests, made by the ostree command."""

from __future__ import annotations

import os
import random
from pathlib import Path

from support.commands import run
from support.peers import require

BRANCH = "test/main"
_ARGUMENTS = ("--timestamp=@1700000000", "--owner-uid=0", "--owner-gid=0", "--no-bindings")


def make_repo(path: Path, mode: str = "archive") -> Path:
    """Make an empty repository."""
    run(require("ostree"), "init", f"--repo={path}", f"--mode={mode}")
    return path


def commit(repo: Path, tree: Path, *arguments: str, branch: str = BRANCH, subject: str = "test") -> str:
    """Commit a directory and return the commit's id; the same tree gives the same id wherever and whenever."""
    done = run(
        require("ostree"),
        "commit",
        f"--repo={repo}",
        f"--branch={branch}",
        f"--subject={subject}",
        *_ARGUMENTS,
        *arguments,
        tree,
    )
    return done.stdout.strip()


def update_summary(repo: Path) -> None:
    """Write the summary, which lists the refs for clients over HTTP."""
    run(require("ostree"), "summary", f"--repo={repo}", "--update")


def make_tree(path: Path, seed: int = 1, files: int = 20) -> Path:
    """Make a directory with files of all the sizes that matter, links, and names that need escaping."""
    chooser = random.Random(seed)
    (path / "usr" / "bin").mkdir(parents=True)
    (path / "usr" / "share" / "empty").mkdir(parents=True)
    for number in range(files):
        size = (0, 1, 63, 64, 65, 4096, 4097, 70_000)[number] if number < 8 else chooser.randrange(20_000)
        (path / "usr" / "share" / f"file {number}").write_bytes(chooser.randbytes(size))
    (path / "usr" / "bin" / "tool").write_bytes(b"#!/bin/sh\n" + chooser.randbytes(300_000))
    (path / "usr" / "bin" / "tool").chmod(0o755)
    os.symlink("tool", path / "usr" / "bin" / "link")
    (path / "usr" / "share" / "back\\slash=ä").write_bytes(b"x" * 100)
    (path / "usr" / "share" / "twin").write_bytes(b"x" * 100)
    return path
