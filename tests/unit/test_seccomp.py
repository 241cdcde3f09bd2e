"""Giving up hard links: a kernel or container that has no seccomp keeps no extension from running."""

from __future__ import annotations

import errno
import os

import pytest

from composefs.linux import seccomp
from composefs.linux.seccomp import give_up_hard_links


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have both ways to set a filter fail."""

    def fail(*_arguments: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(seccomp, "syscall", fail)
    monkeypatch.setattr(seccomp, "set_seccomp_filter", fail)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM], ids=errno.errorcode.get)
def test_where_there_is_none_all_goes_on(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    refuse(monkeypatch, number)
    give_up_hard_links()


def test_a_filter_that_the_kernel_does_not_take_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EFAULT)
    with pytest.raises(OSError, match="Bad address"):
        give_up_hard_links()
