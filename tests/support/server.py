"""A web server on loopback that counts requests and misbehaves on demand.

    with serve(directory) as server:
        server.fault("*.filez", Fault(truncate=True, keep=10), times=1)
        run(CFSCTL, "ostree", "pull", server.url, "main")
        assert server.requests.count("/config") == 1

It serves files below the directory with HTTP/1.1 and kept-alive connections, and ends with the block.
"""

from __future__ import annotations

import fnmatch
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote


class Fault(NamedTuple):
    """What to do instead of serving the file; the default of each field is not to.

    ``status`` answers with this status; ``close`` hangs up without an answer; ``stall`` announces the whole body, sends
    ``keep`` bytes of it and then nothing until the server ends; ``truncate`` announces it, sends ``keep`` bytes and
    hangs up; ``drip`` sends so many bytes a second; ``body`` replaces the body; ``flip`` inverts the byte at this
    position (negative: from the end); ``raw`` sends the first bytes instead of an answer, then the others for ever, if
    there are any.  Whatever it is, it is done only when ``until`` is true.
    """

    status: int | None = None
    close: bool = False
    stall: bool = False
    truncate: bool = False
    keep: int = 0
    body: bytes | None = None
    flip: int | None = None
    drip: int | None = None
    raw: tuple[bytes, bytes] | None = None
    until: Callable[[], bool] | None = None
    headers: tuple[tuple[str, str], ...] = ()


@dataclass
class _Rule:
    pattern: str
    fault: Fault
    times: int | None


@dataclass
class Server:
    """A running server.  ``requests`` are the paths asked for, in the order in which they came."""

    directory: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    connections: int = 0
    _rules: list[_Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ending: threading.Event = field(default_factory=threading.Event)
    _stalling: threading.Event = field(default_factory=threading.Event)

    def fault(self, pattern: str, fault: Fault, *, times: int | None = None) -> None:
        """Misbehave for paths that match the shell pattern, for so many requests (None: all)."""
        with self._lock:
            self._rules.append(_Rule(pattern, fault, times))

    def forgive(self) -> None:
        """Behave from now on, and forget the requests so far."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def wake(self) -> None:
        """Hang up where the server stalls."""
        with self._lock:
            self._stalling.set()
            self._stalling = threading.Event()

    def count(self, pattern: str = "*") -> int:
        """The number of requests whose path matches the shell pattern."""
        with self._lock:
            return sum(fnmatch.fnmatchcase(path, pattern) for path in self.requests)

    def _note(self, path: str) -> Fault | None:
        with self._lock:
            self.requests.append(path)
            for rule in self._rules:
                if fnmatch.fnmatchcase(path, rule.pattern) and rule.times != 0:
                    if rule.times is not None:
                        rule.times -= 1
                    return rule.fault
        return None


@contextmanager
def serve(directory: Path, port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Serve a directory on a port of the loopback interface, a free one unless it is given, while the block runs."""
    server = Server(directory)

    class Handler(_Handler):
        state = server

    with listening(Handler, tls, port) as place:
        server.url = f"http://{place}" if tls is None else f"https://{place.replace('127.0.0.1', 'localhost')}"
        try:
            yield server
        finally:
            server._ending.set()
            server.wake()


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None, port: int = 0) -> Iterator[str]:
    """Have requests handled on a port of the loopback interface, in threads; yield HOST:PORT."""
    http = ThreadingHTTPServer(("127.0.0.1", port), handler)
    http.daemon_threads = True
    if tls is not None:
        http.socket = tls.wrap_socket(http.socket, server_side=True)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port of the loopback interface that nobody else is given while another program begins to listen on it.

    That program sets SO_REUSEADDR, as nearly all do.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextmanager
def listening_program(*argv: str, port: int, log: Path) -> Iterator[None]:
    """Run a program while the block runs, which begins when it listens on a port of the loopback interface.

    What it writes is appended to ``log``.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


class QuietHandler(BaseHTTPRequestHandler):
    """Keeps connections open, and says nothing of requests, or of clients that have had enough, as is their right."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every small answer waits for a delayed acknowledgement

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def send_body(self, body: bytes) -> None:
        """Send what comes after the headers."""
        try:
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing: the tests look at what was asked for."""


class _Handler(QuietHandler):
    state: Server
    timeout = 60

    def setup(self) -> None:
        super().setup()
        with self.state._lock:
            self.state.connections += 1

    def do_GET(self) -> None:
        path = unquote(self.path)
        fault = self.state._note(path) or Fault()
        while fault.until is not None and not fault.until() and not self.state._ending.wait(0.01):
            pass
        if fault.close:
            self.close_connection = True
            return
        if fault.raw is not None:
            self.close_connection = True
            self._send_for_ever(*fault.raw)
            return
        if fault.status is not None:
            self._answer(fault.status, fault.body or b"", fault.headers)
            return
        target = (self.state.directory / path.lstrip("/")).resolve()
        if not target.is_file() or not target.is_relative_to(self.state.directory.resolve()):
            self._answer(404, b"not found\n")
            return
        body = target.read_bytes() if fault.body is None else fault.body
        if fault.flip is not None and body:
            changed = bytearray(body)
            changed[fault.flip] ^= 0xFF
            body = bytes(changed)
        keep = 0 if fault.drip else fault.keep if fault.stall or fault.truncate else None
        self._answer(200, body, fault.headers, keep=keep)
        if fault.drip:
            self._drip(body, fault.drip)
        if fault.stall:
            self.wfile.flush()
            self.state._stalling.wait()
        if fault.stall or fault.truncate:
            self.close_connection = True

    def _send_for_ever(self, first: bytes, others: bytes) -> None:
        self.wfile.write(first)
        while others and not self.state._ending.is_set():
            self.wfile.write(others)

    def _drip(self, body: bytes, rate: int) -> None:
        for start in range(0, len(body), rate // 4):
            self.wfile.write(body[start : start + rate // 4])
            self.wfile.flush()
            if self.state._ending.wait(0.25):
                break

    def _answer(
        self, status: int, body: bytes, headers: tuple[tuple[str, str], ...] = (), *, keep: int | None = None
    ) -> None:
        self.send_response(status)
        names = {name.lower() for name, _ in headers}
        if "content-length" not in names and "transfer-encoding" not in names:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.send_body(body[:keep])
