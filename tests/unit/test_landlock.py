"""Landlock: of every kernel just what its version of the interface knows is asked, as it refuses the rest."""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

import pytest

from composefs.linux import landlock
from composefs.linux.landlock import Access, Ruleset

# Since which version there is what, by struct landlock_ruleset_attr: files, the network, scopes.
FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15, 9: 1 << 16}
NETWORK = {4: 0b11, 10: 0b1100}
SCOPES = {6: 0b11}
CONNECT = 1 << 16


class Kernel:
    """What is asked of a kernel that has no Landlock for the tests to use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
        self.attributes: tuple[int, ...] = ()
        self.rules: list[int] = []
        self.refusal = 0
        monkeypatch.setattr(landlock, "abi", lambda: version)
        monkeypatch.setattr(landlock, "syscall", self.call)

    def call(self, number: int, *arguments: object) -> int:
        if number == 444:
            attributes, size, _ = arguments
            assert isinstance(attributes, bytes)
            assert isinstance(size, int)
            self.attributes = struct.unpack(f"={size // 8}Q", attributes[:size])
        else:
            assert number == 445
            if self.refusal:
                raise OSError(self.refusal, os.strerror(self.refusal))
            rule = arguments[2]
            assert isinstance(rule, bytes)
            self.rules.append(struct.unpack("=Qi", rule)[0])
        return -1


def known(table: dict[int, int], version: int) -> int:
    return sum(rights for since, rights in table.items() if since <= version)


@pytest.mark.parametrize("version", range(1, 12))
def test_what_a_kernel_knows_is_asked_for(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    kernel = Kernel(monkeypatch, version)
    Ruleset(network=False)
    tables = [FILES, *([NETWORK] if version >= 4 else []), *([SCOPES] if version >= 6 else [])]
    assert kernel.attributes == tuple(known(table, version) for table in tables)


def test_the_network_is_left_to_who_may_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, 10)
    Ruleset(network=True)
    assert kernel.attributes == (known(FILES, 10), 0, 0b10)


@pytest.mark.parametrize(("version", "rules"), [(8, []), (9, [CONNECT])])
def test_connecting_is_allowed_where_a_kernel_can_refuse_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int, rules: list[int]
) -> None:
    kernel = Kernel(monkeypatch, version)
    Ruleset(network=True).allow(str(tmp_path), Access.CONNECT)
    assert kernel.rules == rules


@pytest.mark.parametrize(("version", "connect"), [(8, 0), (9, CONNECT)])
def test_who_may_read_a_socket_may_connect_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: int, connect: int
) -> None:
    monkeypatch.chdir(tmp_path)  # for a socket's path must be short
    kernel = Kernel(monkeypatch, version)
    rules = Ruleset(network=False)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        rules.allow("socket", Access.READ)
    rules.allow(".", Access.READ)
    beside = [rights & CONNECT for rights in kernel.rules]
    assert beside == [connect, 0]


def test_a_kernel_without_it_confines_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = Kernel(monkeypatch, 0)
    with Ruleset(network=False) as rules:
        assert rules.empty
        rules.allow(str(tmp_path), Access.READ)
        rules.restrict_self()
    assert (kernel.attributes, kernel.rules) == ((), [])


def test_for_a_file_only_the_rights_of_files_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = Kernel(monkeypatch, 10)
    (tmp_path / "file").touch()
    rules = Ruleset(network=True)
    for access in (Access.READ, Access.WRITE, Access.EXECUTE):
        rules.allow(str(tmp_path / "file"), access)
    read, write, execute, truncate = 1 << 2, 1 << 1, 1 << 0, 1 << 14
    assert kernel.rules == [read, write | truncate, execute]


def test_what_is_never_held_back_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a pipe is, whose place no rule can name."""
    kernel = Kernel(monkeypatch, 10)
    rules = Ruleset(network=True)
    rules.allow(str(tmp_path / "missing"), Access.READ)
    kernel.refusal = errno.EBADFD
    rules.allow(str(tmp_path), Access.READ)
    kernel.refusal = errno.EINVAL
    with pytest.raises(OSError, match="Invalid argument"):
        rules.allow(str(tmp_path), Access.READ)
