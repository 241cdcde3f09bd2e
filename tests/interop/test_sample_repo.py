"""The demo's ostree repository, made in plain Python, is one for ostree too."""

from __future__ import annotations

import sys
from pathlib import Path

from support.commands import run
from support.peers import require

MAKER = Path(__file__).resolve().parent.parent.parent / "samples" / "make_ostree_repo.py"


def test_ostree_accepts_the_sample_repository(tmp_path: Path) -> None:
    ostree = require("ostree")
    repo = tmp_path / "repo"
    commit = run(sys.executable, MAKER, repo, "a/b").stdout.strip()
    assert run(ostree, "rev-parse", f"--repo={repo}", "a/b").stdout.strip() == commit
    assert "object" in run(ostree, "fsck", f"--repo={repo}").stdout
    assert "Version: 1.0" in run(ostree, "log", f"--repo={repo}", "a/b").stdout
    run(ostree, "checkout", f"--repo={repo}", "--user-mode", "a/b", tmp_path / "tree")
    assert run(tmp_path / "tree" / "usr" / "bin" / "hi").stdout == "Hello from an image\n"
    assert (tmp_path / "tree" / "usr" / "share" / "grüße=\\").is_file()


def test_ostree_makes_the_same_objects_of_the_same_files(tmp_path: Path) -> None:
    ostree = require("ostree")
    ours, theirs, tree = tmp_path / "ours", tmp_path / "theirs", tmp_path / "tree"
    run(sys.executable, MAKER, ours, "a/b")
    run(ostree, "init", f"--repo={theirs}", "--mode=archive")
    run(ostree, "checkout", f"--repo={ours}", "--user-mode", "a/b", tree)
    # Attributes need a privileged checkout, so compare where there are none.
    part = tree / "usr" / "share"
    run(ostree, "commit", f"--repo={theirs}", "--branch=x", "--owner-uid=0", "--owner-gid=0", f"--tree=dir={part}")
    listings = [
        run(ostree, "ls", f"--repo={repo}", "-RC", ref, path).stdout.replace(f" {prefix}/", " /").splitlines()[1:]
        for repo, ref, path, prefix in ((ours, "a/b", "/usr/share", "/usr/share"), (theirs, "x", "/", ""))
    ]
    assert len(listings[0]) > 40
    assert listings[0] == listings[1]


def test_the_same_repository_every_time(tmp_path: Path) -> None:
    commits = {run(sys.executable, MAKER, tmp_path / name).stdout for name in ("one", "two")}
    assert len(commits) == 1
