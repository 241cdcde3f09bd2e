"""What every test gets: an environment of its own, and the rules for tests that need something from outside.

A test that needs a program of the distribution calls ``support.peers.require`` and fails when it is absent.  Tests
marked ``vectors`` read repositories recorded from composefs-rs; where those are absent the tests are deselected, and
counted as such, unless COMPOSEFS_REQUIRE_VECTORS or CI is set: then they fail.  The tests in vm/ boot a virtual machine
with fs-verity; COMPOSEFS_NO_VM, and nothing else, leaves them out.

Tests with generated examples take the same ones every time, so that what passed once passes again, and as long as they
like, because a machine may stand still in any of them; with COMPOSEFS_FUZZ the examples are new ones.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from composefs_ext import Core
from support.commands import BIN
from support.ostree_pull import Target
from support.vectors import VECTORS

settings.register_profile(
    "composefs",
    deadline=None,
    derandomize=not os.environ.get("COMPOSEFS_FUZZ"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("composefs")

_XDG = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
_VM = Path(__file__).with_name("vm")
_UNSET = (
    "CFSCTL_REPO",
    "COMPOSEFS_EXT_PATH",
    "CFS_PARSE_STRICT",
    "NO_COLOR",
    "FORCE_COLOR",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
)


def pytest_configure() -> None:
    """Have no signal ignored by what tests start, though it is here: in the background of a shell, or by nohup."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what nobody insists on: recorded repositories where there are none, and what the user leaves out."""
    insisted = VECTORS.is_dir() or os.environ.get("COMPOSEFS_REQUIRE_VECTORS") or os.environ.get("CI")
    machine = not os.environ.get("COMPOSEFS_NO_VM")
    absent = [
        item
        for item in items
        if (item.get_closest_marker("vectors") and not insisted) or (item.path.parent == _VM and not machine)
    ]
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


@pytest.fixture(scope="session", autouse=True)
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give what is made once for several tests a home of its own, too."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _settle(monkeypatch, tmp_path_factory.mktemp("home", numbered=True))
        # Where a checkout has no .venv, its launchers start the extensions of the environment that runs the tests.
        monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{BIN}")
        yield


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the test a home and a directory for temporary files that nobody else uses; return the home.

    What a command leaves in TMPDIR can be told from what others leave there.
    """
    home = tmp_path_factory.mktemp("home", numbered=True)
    _settle(monkeypatch, home)
    return home


def _settle(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Let nothing of the user's configuration, caches, proxies and extensions show."""
    (home / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(home / "tmp"))  # which keeps what it found first
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("COLUMNS", "200")
    # PYTHONUNBUFFERED and its kin would hide what users meet.
    python = [name for name in os.environ if name.startswith("PYTHON")]
    for name in (*_XDG, *_UNSET, *(name.upper() for name in _UNSET), *python):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """Make a repository to pull into."""
    return Target(tmp_path / "target")


@pytest.fixture
def silent_core() -> Iterator[Core]:
    """A core, as an extension knows it, that says nothing and to which nothing is to be said."""
    read_fd, write_fd = os.pipe()
    yield Core(read_fd, write_fd)
    os.close(read_fd)
    os.close(write_fd)
