"""A proxy on loopback, for http (GET with a whole URL) and for TLS (CONNECT).

with proxy() as (url, asked):
    cfsctl(…, env=os.environ | {"http_proxy": url})
    assert asked[0] == "GET http://…/config"
"""

from __future__ import annotations

import base64
import selectors
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

from support.server import QuietHandler, listening


@contextmanager
def proxy(
    password: str | None = None, places: dict[str, str] | None = None, cut: int | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Run a proxy while the block runs; yield its URL and the requests that it let pass.

    ``password`` is the ``USER:PASSWORD`` that it wants; ``places`` says where it finds a HOST:PORT that is not there,
    or the status by which it refuses to go there; the request number ``cut`` gets a connection that is closed at once.
    """
    asked: list[str] = []
    wanted = None if password is None else f"Basic {base64.b64encode(password.encode()).decode()}"

    class Handler(QuietHandler):
        def _may_pass(self) -> bool:
            if wanted is not None and self.headers.get("Proxy-Authorization") != wanted:
                self._refuse(407)
                return False
            asked.append(f"{self.command} {self.path}")
            return True

        def _refuse(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Proxy-Authenticate", 'Basic realm="x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            if not self._may_pass():
                return
            url = urlsplit(self.path)
            connection = HTTPConnection((places or {}).get(url.netloc, url.netloc))
            connection.request("GET", url.path, headers={"Connection": "close"})
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        def do_CONNECT(self) -> None:
            if not self._may_pass():
                return
            place = (places or {}).get(self.path, self.path)
            if place.isdigit():
                self._refuse(int(place))
                return
            host, _, port = place.rpartition(":")
            try:
                connection = socket.create_connection((host, int(port)))
            except ConnectionRefusedError:
                self._refuse(502)
                return
            with connection as there:
                self.send_response(200)
                self.end_headers()
                if len(asked) - 1 != cut:
                    _relay(self.connection, there)
            self.close_connection = True

    with listening(Handler) as place:
        yield f"http://{place}", asked


def _relay(here: socket.socket, there: socket.socket) -> None:
    """Carry bytes both ways until one side has no more."""
    with selectors.DefaultSelector() as selector:
        selector.register(here, selectors.EVENT_READ, there)
        selector.register(there, selectors.EVENT_READ, here)
        while True:
            for key, _ in selector.select(timeout=30):
                source = key.fileobj
                assert isinstance(source, socket.socket)
                try:
                    data = source.recv(65536)
                    key.data.sendall(data)
                except ConnectionError:
                    return
                if not data:
                    return
