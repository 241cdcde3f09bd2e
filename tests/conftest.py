"""What every test gets: an environment of its own, and the rules for tests that need something from outside.

A test that needs a program of the distribution calls ``support.peers.require`` and fails when it is absent.  Tests
marked ``vectors`` read repositories recorded from composefs-rs, those marked ``vm`` boot a kernel with fs-verity; where
these are absent the tests are deselected, and counted as such, unless COMPOSEFS_REQUIRE_VECTORS, COMPOSEFS_REQUIRE_VM
or CI is set: then they fail.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import vm
from support.vectors import VECTORS

_XDG = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
_UNSET = ("COMPOSEFS_EXT_PATH", "CFS_PARSE_STRICT", "NO_COLOR", "FORCE_COLOR", "http_proxy", "https_proxy", "all_proxy")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests whose recorded repositories or kernel are not here, when nobody insists."""
    for marker, present in (("vectors", VECTORS.is_dir()), ("vm", vm.kernel() is not None)):
        if present or os.environ.get(f"COMPOSEFS_REQUIRE_{marker.upper()}") or os.environ.get("CI"):
            continue
        absent = [item for item in items if item.get_closest_marker(marker)]
        if absent:
            config.hook.pytest_deselected(items=absent)
            items[:] = [item for item in items if not item.get_closest_marker(marker)]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the test a home and a directory for temporary files that nobody else uses; return the home.

    Nothing of the user's configuration, caches, proxies and extensions shows, and what a command leaves in TMPDIR can
    be told from what others leave there.
    """
    home = tmp_path_factory.mktemp("home", numbered=True)
    (home / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("COLUMNS", "200")
    # PYTHONUNBUFFERED and its kin would hide what users meet.
    python = [name for name in os.environ if name.startswith("PYTHON")]
    for name in (*_XDG, *_UNSET, *(name.upper() for name in _UNSET), *python):
        monkeypatch.delenv(name, raising=False)
    return home
