"""What most tests of the command line start from: a repository, and a tree to make images of."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.repository import Repository


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Make an insecure sha256 repository."""
    Repository.init(tmp_path / "repo", algorithm=SHA256, insecure=True)
    return tmp_path / "repo"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a small tree with a /usr, an inline file and two objects."""
    root = tmp_path / "tree"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "hello").write_bytes(b"#!/bin/sh\n" + b"echo hello\n" * 100)
    (root / "usr" / "bin" / "other").write_bytes(os.urandom(100_000))
    (root / "usr" / "small").write_text("small\n")
    for path in (*root.rglob("*"), root):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return root
