"""The cache of an extension that runs under an account of its own: where the account can get, or there is none."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from composefs.ext import cache
from composefs.ext.account import Account

OTHER = 54321


def account(uid: int, *groups: int) -> Account:
    return Account("other", uid, OTHER, groups, "/nonexistent")


@pytest.mark.parametrize(
    ("mode", "who", "reached"),
    [
        (0o700, account(os.geteuid()), True),
        (0o077, account(os.geteuid()), False),
        (0o707, account(OTHER, os.getegid()), False),
        (0o010, account(OTHER, os.getegid()), True),
        (0o770, account(OTHER), False),
        (0o001, account(OTHER), True),
    ],
)
def test_who_gets_through_a_directory(monkeypatch: pytest.MonkeyPatch, mode: int, who: Account, reached: bool) -> None:
    modes = {"/a": mode}

    def status(path: str) -> Any:
        return SimpleNamespace(st_mode=modes.get(path, 0o755), st_uid=os.geteuid(), st_gid=os.getegid())

    monkeypatch.setattr(os, "stat", status)
    assert who.reaches("/a/b") is reached


@pytest.mark.root
def test_no_cache_where_the_account_does_not_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = tmp_path / "cache"
    monkeypatch.setattr(cache, "CACHE", str(parent))
    tmp_path.chmod(0o755)
    ours = cache.cache_directory("some", None, None, account(os.geteuid()))
    assert ours == f"{parent}/{os.geteuid()}/ext/some/none"
    assert stat.S_IMODE(parent.stat().st_mode) == 0o711
    parent.chmod(0o700)
    assert cache.cache_directory("some", None, None, account(OTHER)) is None
    assert cache.cache_directory("some", None, None, account(os.geteuid())) == ours


@pytest.mark.root
def test_the_cache_of_an_account_is_its_own_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE", str(tmp_path))
    monkeypatch.setattr(Account, "reaches", lambda _self, _path: True)
    made = cache.cache_directory("some", None, None, account(OTHER))
    assert made == f"{tmp_path}/{OTHER}/ext/some/none"
    assert (Path(made).stat().st_uid, Path(made).parent.stat().st_uid) == (OTHER, 0)
    assert cache.cache_directory("some", None, None, account(OTHER)) == made


@pytest.mark.parametrize("who", [None, account(os.geteuid())], ids=["user", "account"])
def test_no_cache_that_somebody_takes_away_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: Account | None
) -> None:
    """Who made the directory first, where everybody may make one, could put one with contents of theirs back."""
    base = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(base))
    monkeypatch.setattr(cache, "CACHE", str(base))
    look = cache.distrust

    def look_while_it_is_away(path: str, user: int, home: str) -> str | None:
        if not base.exists():
            return look(path, user, home)
        away = base.rename(tmp_path / "away")
        try:
            return look(path, user, home)
        finally:
            away.rename(base)

    monkeypatch.setattr(cache, "distrust", look_while_it_is_away)
    assert cache.cache_directory("some", None, None, who) is None
    assert base.is_dir()


def test_no_cache_that_cannot_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_directory("some", None, None, None) == f"{tmp_path}/composefs/ext/some/none"

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(cache, "distrust", fail)
    assert cache.cache_directory("some", None, None, None) is None


def test_no_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never worth an error: a home may be read-only."""

    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "makedirs", fail)
    assert cache.cache_directory("some", None, None, None) is None


def test_a_cache_where_the_kernel_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a symlink to a directory .. leads to what is above that."""
    (tmp_path / "elsewhere/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/below")
    monkeypatch.setenv("XDG_CACHE_HOME", f"{tmp_path}/link/../cache")
    made = cache.cache_directory("some", None, None, None)
    assert made is not None
    assert os.path.samefile(made, tmp_path / "elsewhere/cache/composefs/ext/some/none")
    (tmp_path / "elsewhere").chmod(0o777)
    assert cache.cache_directory("some", None, None, None) is None
