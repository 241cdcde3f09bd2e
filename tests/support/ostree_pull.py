"""Pulls by the installed command: repositories to pull into, and what they hold afterwards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from composefs.digest import ALGORITHMS
from composefs.repository import Repository
from support.commands import TIMEOUT, cfsctl

LIBEXEC = Path(__file__).resolve().parents[2] / "libexec"


@pytest.fixture
def extensions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the checkout's extensions, and let failures come quickly; but a server may be as slow as the machine is."""
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(LIBEXEC))
    monkeypatch.setenv("COMPOSEFS_OSTREE_RETRIES", "2")
    monkeypatch.setenv("COMPOSEFS_OSTREE_RETRY_DELAY", "0.01")
    monkeypatch.setenv("COMPOSEFS_OSTREE_LOW_SPEED_TIME", str(TIMEOUT))


def start_by(statement: str, name: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an extension of the checkout begin with a statement, as an extension in ``directory``."""
    directory.mkdir(exist_ok=True)
    shutil.copy(LIBEXEC / f"{name}.json", directory)
    lines = (f"#!{sys.executable} -P", statement, f"from composefs_{name}.main import main", "main()", "")
    (directory / name).write_text("\n".join(lines))
    (directory / name).chmod(0o755)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(directory))


class Target:
    """A composefs repository to pull into."""

    def __init__(self, path: Path, algorithm: str = "sha256", erofs: int = 1) -> None:
        self.path = path
        Repository.init(path, algorithm=ALGORITHMS[algorithm], erofs_default=erofs, insecure=True)

    @classmethod
    def copied(cls, path: Path, kept: Path, prepare: Callable[[Target], object]) -> Target:
        """Return a copy of what is kept, which is prepared when there is none yet."""
        if not kept.exists():
            prepare(cls(path))
            shutil.copytree(path, kept, symlinks=True)
        else:
            shutil.copytree(kept, path, symlinks=True)
        return cls(path)

    def ostree(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run an ostree command on it."""
        return cfsctl("--repo", self.path, "ostree", *arguments, **options)

    def json(self, *arguments: str | Path) -> dict[str, Any]:
        """Run an ostree command and return the object that it prints with --json.

        Left out is what came over the network: for the same commit it is another number on each way.
        """
        result: dict[str, Any] = json.loads(self.ostree(*arguments, "--json").stdout)
        result.pop("bytes_transferred", None)
        return result

    def names(self) -> dict[str, str]:
        """Everything that has a name: symlinks below streams and images, with their targets."""
        return {
            str(link.relative_to(self.path)): str(link.readlink())
            for top in ("streams", "images")
            for link in (self.path / top).rglob("*")
            if link.is_symlink()
        }

    def left_over(self) -> list[Path]:
        """What a run has left in staging."""
        return list((self.path / "staging").rglob("*")) if (self.path / "staging").exists() else []
