"""The repository and the extension that the tests of the host run."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.hosting import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)
