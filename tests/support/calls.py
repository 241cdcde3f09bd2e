"""Calls of the protocol as the steps of tests/support/extensions/bad, and what tests put by them."""

from __future__ import annotations

from typing import Any

from composefs.digest import SHA256
from composefs.fsverity import digest_bytes
from support.hosting import Host

KIND = "0123456789abcdef"
HELLO = digest_bytes(b"hello", SHA256).hex()
WORLD = digest_bytes(b"world", SHA256).hex()
NOWHERE = "ab" * 32
BIG = b"x" * 5000
BIG_ID = digest_bytes(BIG, SHA256).hex()
EMPTY_ID = digest_bytes(b"", SHA256).hex()
ROOT = "/ 4096 40755 2 0 0 0 0.0 - - -\n"


def dump_of(object_id: str, size: int, path: str | None = None) -> str:
    path = path or f"{object_id[:2]}/{object_id[2:]}"
    return ROOT + f"/file {size} 100644 1 0 0 0 0.0 {path} - {object_id}\n"


def call(method: str, **params: Any) -> list[Any]:
    return ["call", method, params]


def put(*names: str) -> list[Any]:
    return call("object.put", files=[{"name": name} for name in names])


def kind_of(answer: dict[str, Any]) -> str:
    kind: str = answer["data"]["kind"]
    return kind


HELLO_WORLD = [["write", "a", "hello"], ["write", "b", "world"], put("a", "b")]


def stored_stream(host: Host) -> str:
    """Store an empty stream by way of the extension, and return its id."""
    stream: str = host.do(call("stream.put", content_type=KIND))[0]["id"]
    return stream
