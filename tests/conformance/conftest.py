"""The repository and the extension that the tests of the host run, and the samples that those of the kit run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.hosting import Host

BROKEN = Path(__file__).parents[2] / "samples/broken"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The samples as samples/broken/install puts them, for the interpreter of this test."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    subprocess.run([BROKEN / "install", tmp_path / "ext"], check=True)
    return tmp_path / "ext"
