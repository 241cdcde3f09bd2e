"""What is told of a netrc file before it is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from composefs_ostree.remotes.credentials import netrc_problem


@pytest.fixture
def netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with passwords."""
    path = tmp_path / "netrc"
    path.write_text("machine localhost login user password hunter2\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))
    return path


def test_one_of_our_own_is_used_without_a_word(netrc: Path) -> None:
    assert netrc_problem() is None


def test_none_is_read_where_it_is_dev_null(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is that asked for where it is missing, as in some roots."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "devnull", str(netrc.with_name("none")))
        assert netrc_problem() is None
    netrc.chmod(0o644)
    link = netrc.with_name("link")
    link.symlink_to("/dev/null")
    monkeypatch.setenv("NETRC", str(link))
    assert netrc_problem() is None


def test_one_that_is_named_and_not_there_is_told(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server that wants a login would be all that speaks of it."""
    missing = netrc.with_name("missing")
    monkeypatch.setenv("NETRC", str(missing))
    assert str(netrc_problem()).startswith(f"{missing}: not read, as it is not there")


def test_a_variable_without_a_value_names_none(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then that in the home directory is read, if there is one."""
    monkeypatch.setenv("NETRC", "")
    monkeypatch.setenv("HOME", str(netrc.parent))
    assert netrc_problem() is None
    netrc.rename(netrc.with_name(".netrc")).chmod(0o644)
    assert "others can read or change" in str(netrc_problem())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602])
def test_one_that_others_can_read_or_change_is_told(netrc: Path, mode: int) -> None:
    netrc.chmod(mode)
    assert f"chmod 600 {netrc}" in str(netrc_problem())


def test_one_of_somebody_else_is_told(netrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.stat

    def theirs(path: str | Path) -> os.stat_result:
        values = list(stat(path))
        values[4] = os.geteuid() + 1
        return os.stat_result(values)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", theirs)
        told = netrc_problem()
    assert "others can read or change" in str(told)
