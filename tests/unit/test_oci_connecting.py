"""Connecting to a host of several addresses, of which some lead nowhere."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from composefs_oci.sources.registry.connecting import connect

HOST = "registry.example"
SILENT, REFUSES, ANSWERS = "127.0.0.2", "127.0.0.3", "127.0.0.4"
LACKED = "an address of a family that the kernel lacks, such as IPv6 where that is turned off"
FOREVER = 10_000.0
_NO_FAMILY = 44


@pytest.fixture
def port() -> Iterator[int]:
    """A port where one address answers, one has no room for more connections, and others refuse them."""
    with ExitStack() as stack:
        answering, silent = (stack.enter_context(socket.socket()) for _ in range(2))
        answering.bind((ANSWERS, 0))
        answering.listen()
        port = int(answering.getsockname()[1])
        silent.bind((SILENT, port))
        silent.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect((SILENT, port))
        yield port


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have a name stand for some addresses."""

    def found(_host: str, port: int, **_: object) -> list[object]:
        return [
            (_NO_FAMILY if address == LACKED else socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
            for address in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)


@pytest.mark.parametrize(
    "others", [(), (LACKED,), (SILENT, LACKED), (SILENT,), (REFUSES,), (SILENT, REFUSES, SILENT), (REFUSES, SILENT)]
)
def test_the_address_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch, port: int, others: tuple[str, ...]) -> None:
    resolve(monkeypatch, *others, ANSWERS, SILENT)
    with connect((HOST, port), FOREVER) as connection:
        assert connection.getpeername() == (ANSWERS, port)
        assert connection.gettimeout() == FOREVER


def test_nobody_is_there(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    resolve(monkeypatch, REFUSES, REFUSES)
    with pytest.raises(ConnectionRefusedError):
        connect((HOST, port), FOREVER)
    resolve(monkeypatch, SILENT, REFUSES)
    with pytest.raises(TimeoutError):
        connect((HOST, port), 0.1)


def test_addresses_of_both_families_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    tried = []

    class Socket(socket.socket):
        def connect_ex(self, address: object) -> int:
            tried.append(self.family)
            return super().connect_ex((REFUSES, port)) if self.family == socket.AF_INET else 101

    resolve(monkeypatch, REFUSES)
    [found] = socket.getaddrinfo(HOST, port)
    sixes = [(socket.AF_INET6, *found[1:4], ("::1", port, 0, 0))] * 3
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [*sixes, found])
    monkeypatch.setattr(socket, "socket", Socket)
    with pytest.raises(OSError, match="unreachable"):
        connect((HOST, port), FOREVER)
    assert tried == [socket.AF_INET6, socket.AF_INET, socket.AF_INET6, socket.AF_INET6]
