"""Requests of ioctl(2) on each architecture; the numbers were written by a C compiler with the headers of each."""

from __future__ import annotations

import os
import runpy

import pytest

from composefs.linux import ioctls

GENERIC = (0x40049409, 0x40806685, 0xC0046686, 0xB703)
ODD = (0x80049409, 0x80806685, 0xC0046686, 0x2000B703)
SWAPPED = (0x80049409, 0x80806685, 0xC0046686, 0xB703)
MACHINES = {
    **dict.fromkeys(("x86_64", "i686", "aarch64", "armv7l", "riscv64", "loongarch64", "s390x"), GENERIC),
    **dict.fromkeys(("ppc64le", "ppc64", "mips64", "sparc64", "alpha"), ODD),
    **dict.fromkeys(("parisc", "parisc64"), SWAPPED),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_requests_are_those_of_the_headers(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    names = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*names[:4], machine)))
    found = runpy.run_path(ioctls.__file__)
    requests = ("FICLONE", "FS_IOC_ENABLE_VERITY", "FS_IOC_MEASURE_VERITY", "NS_GET_NSTYPE")
    assert tuple(found[name] for name in requests) == MACHINES[machine]
