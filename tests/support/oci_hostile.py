"""A registry on loopback that misbehaves as a test wants, and notes what it was sent.

``rules`` map a path's suffix to functions that answer instead; each gets the handler, and returns False to let the
request be answered as usual.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from support.oci_layout import Layout
from support.server import QuietHandler, listening

Rule = Callable[["Handler"], object]


@dataclass
class Hostile:
    """A running registry; ``requests`` are (path, headers) in the order in which they came."""

    layout: Layout
    host: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    rules: list[tuple[str, Rule]] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def image(self) -> str:
        """The reference of its image."""
        return f"docker://{self.host}/app:1"

    def rule(self, suffix: str, rule: Rule, times: int | None = None) -> None:
        """Let a function answer requests whose path has this in it."""
        left = [times]

        def counted(handler: Handler) -> object:
            if left[0] == 0:
                return False
            if left[0] is not None:
                left[0] -= 1
            return rule(handler)

        self.rules.append((suffix, counted))

    def paths(self, part: str) -> list[dict[str, str]]:
        """The headers of the requests whose path has this in it."""
        return [headers for path, headers in self.requests if part in path]


class Handler(QuietHandler):
    """Answers as a registry does."""

    state: Hostile

    def do_GET(self) -> None:
        self.state.requests.append((self.path, dict(self.headers)))
        for part, rule in self.state.rules:
            if part in self.path and rule(self) is not False:
                return
        name = urlsplit(self.path).path.rpartition("/")[2]
        entry = self.state.layout.entries[0]
        data = self.state.layout.blobs.get(entry["digest"] if name == "1" else name)
        if data is None or not any(part in self.path for part in ("/manifests/", "/blobs/", "/storage/")):
            self.answer(404, b'{"errors": [{"code": "NAME_UNKNOWN", "message": "not here\\u001b[2J"}]}')
            return
        media_type = json.loads(data).get("mediaType", "") if "/manifests/" in self.path else ""
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"Content-Type": media_type or "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self.answer(206 if start else 200, data[start:], headers)

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length", "0"))
        self.state.requests.append((f"{self.path} {self.rfile.read(size).decode()}", dict(self.headers)))
        for part, rule in self.state.rules:
            if part in self.path and rule(self) is not False:
                return
        self.answer(404, b"")

    def answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        """Answer with this body; ``length`` is what is announced, and the connection ends when it is not true."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.send_body(body)
        if length is not None and length != len(body):
            self.close_connection = True


@contextmanager
def hostile(layout: Layout, tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """Run a registry with the layout's first image as app:1 while the block runs."""
    state = Hostile(layout)
    kind: Any = type("Bound", (Handler,), {"state": state})
    with listening(kind, tls) as state.host:
        try:
            yield state
        finally:
            state.ending.set()
