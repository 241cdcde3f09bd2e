"""The misbehaving server behaves and misbehaves as the tests of pulls rely on."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.commands import TIMEOUT
from support.server import Fault, Server, serve


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "a b").write_bytes(b"0123456789")
    with serve(tmp_path) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=TIMEOUT)
    yield connection
    connection.close()


def get(client: http.client.HTTPConnection, path: str = "/a%20b") -> tuple[int, bytes]:
    client.request("GET", path)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_it_serves_and_counts(server: Server, client: http.client.HTTPConnection) -> None:
    assert get(client) == (200, b"0123456789")
    assert get(client, "/absent")[0] == 404
    assert get(client, "/../../etc/passwd")[0] == 404
    assert server.requests[:2] == ["/a b", "/absent"]
    assert (server.count("/a*"), server.connections) == (2, 1)


def test_it_misbehaves_as_often_as_asked(server: Server, client: http.client.HTTPConnection) -> None:
    server.fault("/a*", Fault(status=503), times=1)
    server.fault("/a*", Fault(flip=-1), times=1)
    server.fault("/a*", Fault(body=b"other"), times=1)
    assert get(client)[0] == 503
    assert get(client) == (200, b"012345678" + bytes([ord("9") ^ 0xFF]))
    assert get(client) == (200, b"other")
    assert get(client) == (200, b"0123456789")


def test_a_truncated_answer_announces_the_whole(server: Server, client: http.client.HTTPConnection) -> None:
    server.fault("*", Fault(truncate=True, keep=4))
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(client)
    assert caught.value.partial == b"0123"


def test_hanging_up(server: Server, client: http.client.HTTPConnection) -> None:
    server.fault("*", Fault(close=True))
    with pytest.raises(http.client.RemoteDisconnected):
        get(client)


def test_a_stall_ends_with_the_server(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with serve(tmp_path) as server:
        server.fault("*", Fault(stall=True, keep=3))
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=TIMEOUT)
        connection.request("GET", "/x")
        answer = connection.getresponse()
        assert answer.read(3) == b"012"
        client = connection.sock
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        answer.close()
        connection.close()
