"""Errors of the system are of the same kind in core and SDK; what the SDK says to do about them the core says too."""

from __future__ import annotations

import errno
import os

import pytest

from composefs.systemerrors import from_os_error
from composefs_ext.errors import from_exception


@pytest.mark.parametrize("number", sorted(errno.errorcode), ids=errno.errorcode.__getitem__)
def test_core_and_sdk_tell_the_same_of_an_error(number: int) -> None:
    error = OSError(number, os.strerror(number), "/some/file")
    ours, theirs = from_os_error(error, "reading it"), from_exception(error)
    assert (ours.kind, ours.subject) == (theirs.kind, theirs.subject) == (theirs.kind, "/some/file")
    assert os.strerror(number) in ours.message
    assert os.strerror(number) in theirs.message
    assert (ours.hint or "").startswith(theirs.hint or "")


@pytest.mark.parametrize(("user", "remedy"), [(0, "look for an immutable file"), (1000, "check the owner and mode")])
def test_who_is_root_is_not_told_to_be_root(monkeypatch: pytest.MonkeyPatch, user: int, remedy: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    error = PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    for made in (from_os_error(error, "writing it"), from_exception(error)):
        assert (made.hint or "").startswith(remedy)
