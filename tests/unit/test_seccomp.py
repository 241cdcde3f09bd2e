"""Giving up hard links: a kernel or container that has no seccomp keeps no extension from running."""

from __future__ import annotations

import errno
import os
import struct

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


def verdict(architecture: int, number: int) -> int:
    """Run the filter as the kernel does for a system call (BPF with loads, jumps and returns)."""
    instructions = list(struct.iter_unpack("=HBBI", seccomp._program()))
    position = value = 0
    while True:
        code, if_equal, otherwise, operand = instructions[position]
        position += 1
        if code == 0x20:
            value = {0: number, 4: architecture}[operand]
        elif code == 0x15:
            position += if_equal if value == operand else otherwise
        else:
            assert code == 0x06
            return operand


@pytest.mark.parametrize(
    ("architecture", "calls"),
    [
        (0xC000003E, {86, 265, 425, 1 << 30 | 86, 1 << 30 | 265, 1 << 30 | 425}),  # x86-64, and x32
        (0x40000003, {9, 303, 425}),  # i386
        (0xC00000B7, {37, 425}),  # ARM
        (0x40000028, {9, 330, 425}),
        (0xC00000F3, {37, 425}),  # RISC-V
        (0x400000F3, {37, 425}),
        (0xC0000016, set()),  # one that is not known here
    ],
)
def test_what_makes_links_is_refused_and_nothing_else(architecture: int, calls: set[int]) -> None:
    """By link(2), linkat(2) or io_uring, with the numbers of asm/unistd.h."""
    numbers = [each | bit for each in range(500) for bit in (0, 1 << 30)]
    refused = {number for number in numbers if verdict(architecture, number) != 0x7FFF0000}
    assert refused == calls
    assert {verdict(architecture, number) for number in calls} <= {0x00050000 | errno.EPERM}
