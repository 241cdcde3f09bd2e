"""Registries that lie, break, stall and pry: each a clear error with the URL, or an image that is whole."""

from __future__ import annotations

import base64
import copy
import io
import json
import os
import select
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from composefs_ext.errors import (
    CorruptError,
    ExtError,
    FormatError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    TooLargeError,
    UnsupportedError,
)
from composefs_oci.formats.descriptors import Descriptor, parse_manifest
from composefs_oci.formats.reference import parse_reference
from composefs_oci.sources.access import Access
from composefs_oci.sources.opening import open_source
from composefs_oci.sources.registry import connecting, http
from composefs_oci.sources.registry.failures import SlowError
from composefs_oci.sources.registry.patience import Patience
from composefs_oci.sources.registry.proxy import proxy_for
from composefs_oci.sources.registry.trust import Trust
from support.commands import TIMEOUT, cfsctl, the_error
from support.oci_hostile import Handler, Hostile, hostile
from support.oci_images import init
from support.oci_layout import INDEX, MANIFEST, Layout, tar
from support.oci_registry import certificate
from support.proxy import proxy

SECRET = "pass-word-of-somebody"
IMAGE = Layout()
IMAGE.add(IMAGE.image(tar(noise=os.urandom(3 << 20))))


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hostile]:
    monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "2")
    monkeypatch.setenv("COMPOSEFS_OCI_RETRY_DELAY", "0.01")
    monkeypatch.setenv("COMPOSEFS_OCI_TIMEOUT", str(TIMEOUT))  # a slow machine is no slow peer
    with hostile(copy.deepcopy(IMAGE)) as running:
        yield running


@pytest.fixture
def hurry(peer: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a second's patience with a peer that makes one wait."""
    assert peer.host
    monkeypatch.setenv("COMPOSEFS_OCI_TIMEOUT", "1")


def read(peer: Hostile, authfile: str | None = None, tell: Any = None) -> bytes:
    """Read the layer of the image, compressed."""
    access = Access(authfile, tls_verify=False)
    with open_source(parse_reference(peer.image), access, tell) as source:
        document = source.manifest()
        manifest = parse_manifest(document.raw, document.media_type)
        with source.open_blob(manifest.layers[0]) as blob:
            return b"".join(iter(blob.read, b""))


def layer(peer: Hostile) -> tuple[str, bytes]:
    manifest = parse_manifest(
        peer.layout.blobs[peer.layout.entries[0]["digest"]], str(peer.layout.entries[0]["mediaType"])
    )
    return manifest.layers[0].digest, peer.layout.blobs[manifest.layers[0].digest]


def login(peer: Hostile, path: Path, **entry: str) -> str:
    encoded = {"auth": base64.b64encode(f"somebody:{SECRET}".encode()).decode()}
    path.write_text(json.dumps({"auths": {peer.host: entry or encoded}}))
    return str(path)


def fails(peer: Hostile, error: type[ExtError], match: str, **options: Any) -> ExtError:
    """Read, which must fail; check what every error has to have."""
    with pytest.raises(error, match=match) as caught:
        read(peer, **options)
    assert f"http://{peer.host}/" in caught.value.message
    assert caught.value.hint
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1500
    assert SECRET not in caught.value.message + str(caught.value.hint)
    return caught.value


def test_all_is_well(peer: Hostile) -> None:
    assert read(peer) == layer(peer)[1]


@pytest.mark.parametrize("status", [102, 103, 199])
@pytest.mark.parametrize("count", [1, 10, 11])
def test_answers_before_the_answer(peer: Hostile, count: int, status: int) -> None:
    hints = b"HTTP/1.1 %d Early Hints\r\nContent-Length: 5\r\nLink: </x>\r\n\r\n" % status * count

    def early(handler: Handler) -> bool:
        handler.wfile.write(hints)
        return False

    peer.rule("/v2/app", early)
    if count <= 10:
        assert read(peer) == layer(peer)[1]
    else:
        fails(peer, NetworkError, f"HTTP status {status}")


def test_a_broken_blob_goes_on_where_it_was(peer: Hostile) -> None:
    digest, data = layer(peer)
    cut = len(data) // 3
    peer.rule(f"/blobs/{digest}", lambda handler: handler.answer(200, data[:cut], length=len(data)), times=1)
    assert read(peer) == data
    ranges = [headers.get("Range") for headers in peer.paths(f"/blobs/{digest}")]
    assert ranges == [None, f"bytes={cut}-"]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_blob_of_unknown_length_goes_on_too(peer: Hostile, knows_ranges: bool) -> None:
    digest, data = layer(peer)
    cut = len(data) // 3

    def unmeasured(handler: Handler) -> None:
        begins = int(handler.headers.get("Range", "bytes=0-")[6:-1]) if knows_ranges else 0
        is_first = len(peer.paths(f"/blobs/{digest}")) == 1
        handler.send_response(206 if begins else 200)
        if begins:
            handler.send_header("Content-Range", f"bytes {begins}-{len(data) - 1}/{len(data)}")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[begins : cut if is_first else len(data)])
        handler.close_connection = True

    peer.rule(f"/blobs/{digest}", unmeasured)
    assert read(peer) == data
    ranges = [headers.get("Range") for headers in peer.paths(f"/blobs/{digest}")]
    assert ranges == [None, f"bytes={cut}-"]


def test_a_blob_of_unknown_length_that_breaks_off_when_all_has_come(peer: Hostile) -> None:
    digest, data = layer(peer)

    def without_last_chunk(handler: Handler) -> None:
        handler.send_response(416 if "Range" in handler.headers else 200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        handler.close_connection = True

    peer.rule(f"/blobs/{digest}", without_last_chunk)
    assert read(peer) == data
    assert len(peer.paths(f"/blobs/{digest}")) == 1


@pytest.mark.parametrize("status", [206, 416])
def test_a_blob_of_unknown_length_that_is_shorter(peer: Hostile, status: int) -> None:
    """What ends there again has no more, or is said to have none, which is no matter of the network."""
    digest, data = layer(peer)
    cut = len(data) // 3

    def unmeasured(handler: Handler) -> None:
        is_first = len(peer.paths(f"/blobs/{digest}")) == 1
        handler.send_response(200 if is_first else status)
        if not is_first:
            handler.send_header("Content-Range", f"bytes {cut}-{cut}/*" if status == 206 else f"bytes */{cut}")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[:cut] if is_first else b"")
        handler.close_connection = True

    peer.rule(f"/blobs/{digest}", unmeasured)
    fails(peer, CorruptError, f"ends after {cut} of {len(data)} bytes")
    assert len(peer.paths(f"/blobs/{digest}")) == 2


def test_a_blob_that_breaks_off_where_its_length_is_known_and_where_not(peer: Hostile) -> None:
    """Only of the second end nobody can tell what it is."""
    digest, data = layer(peer)
    cut = len(data) // 3

    def breaking(handler: Handler) -> None:
        turn = len(peer.paths(f"/blobs/{digest}"))
        begins, ends = ((0, cut), (cut, cut), (cut, len(data)))[turn - 1]
        handler.send_response(206 if begins else 200)
        if begins:
            handler.send_header("Content-Range", f"bytes {begins}-{len(data) - 1}/{len(data)}")
        if turn != 2:
            handler.send_header("Content-Length", str(len(data) - begins))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[begins:ends])
        handler.close_connection = True

    peer.rule(f"/blobs/{digest}", breaking)
    assert read(peer) == data


def test_a_registry_without_ranges_is_read_again(peer: Hostile) -> None:
    digest, data = layer(peer)
    peer.rule(f"/blobs/{digest}", lambda handler: handler.answer(200, data[:1_500_000], length=len(data)), times=1)
    peer.rule(f"/blobs/{digest}", lambda handler: handler.answer(200, data))
    assert read(peer) == data


def test_what_is_read_again_may_end_before_that_which_is_here(peer: Hostile) -> None:
    digest, data = layer(peer)
    peer.rule(f"/blobs/{digest}", lambda handler: handler.answer(200, data[:1000], length=len(data)), times=1)

    def short(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data[:10])

    peer.rule(f"/blobs/{digest}", short)
    fails(peer, NetworkError, rf"closed {len(data) - 1000} bytes before the end \(3 attempts\)")


def test_progress_renews_patience(peer: Hostile) -> None:
    """Every connection brings a good piece and breaks: it may do so more often than there are retries."""
    digest, data = layer(peer)

    def some(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        handler.answer(206 if start else 200, data[start : start + (600 << 10)], headers, length=len(data) - start)

    peer.rule(f"/blobs/{digest}", some)
    assert read(peer) == data
    assert len(peer.paths(f"/blobs/{digest}")) > 4


def test_what_came_once_is_no_patience_for_ever(peer: Hostile) -> None:
    digest, data = layer(peer)

    def some(handler: Handler) -> None:
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        size = 10_000 if start else 2 << 20
        handler.answer(206 if start else 200, data[start : start + size], headers, length=len(data) - start)

    peer.rule(f"/blobs/{digest}", some)
    fails(peer, NetworkError, rf"closed {len(data) - (2 << 20) - 20_000} bytes before the end.* \(3 attempts\)")


def test_a_blob_that_never_gets_further(peer: Hostile) -> None:
    digest, data = layer(peer)
    peer.rule(f"/blobs/{digest}", lambda handler: handler.answer(200, data[:100], length=len(data)))
    match = rf"closed {len(data) - 100} bytes before the end.* \(3 attempts\)"
    assert fails(peer, NetworkError, match).hint


@pytest.mark.parametrize("kind", ["another range", "no range", "flipped part", "flipped part of an unknown whole"])
def test_wrong_parts_are_noticed(peer: Hostile, kind: str) -> None:
    digest, data = layer(peer)
    cut = 1000
    peer.rule(f"/blobs/{digest}", lambda handler: handler.answer(200, data[:cut], length=len(data)), times=1)

    def wrong(handler: Handler) -> None:
        rest = data[cut:-1] + bytes([data[-1] ^ 1])
        headers = {
            "another range": {"Content-Range": f"bytes {cut + 1}-{len(data) - 1}/{len(data)}"},
            "flipped part": {"Content-Range": f"bytes {cut}-{len(data) - 1}/{len(data)}"},
            "flipped part of an unknown whole": {"Content-Range": f"bytes {cut}-{len(data) - 1}/*"},
        }.get(kind, {})
        handler.answer(206, rest, headers)

    peer.rule(f"/blobs/{digest}", wrong)
    fails(peer, CorruptError, "digest" if kind.startswith("flipped part") else "another part")


@pytest.mark.parametrize("change", ["digest", "short", "long"])
def test_blobs_that_are_not_what_the_manifest_says(peer: Hostile, change: str) -> None:
    digest, data = layer(peer)
    wrong = {"digest": b"x" + data[1:], "short": data[:-1], "long": data + b"x"}[change]
    peer.rule(f"/blobs/{digest}", lambda handler: handler.answer(200, wrong))
    fails(peer, CorruptError, "digest" if change == "digest" else "bytes, not")


@pytest.mark.parametrize(("extra", "match"), [(b"x", "longer"), (b"", "ends after")])
def test_blobs_of_unknown_length(peer: Hostile, extra: bytes, match: str) -> None:
    digest, data = layer(peer)

    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(data + extra if extra else data[:-1])
        handler.close_connection = True

    peer.rule(f"/blobs/{digest}", endless)
    fails(peer, CorruptError, match)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_what_may_pass_is_tried_again(peer: Hostile, part: str, status: int) -> None:
    peer.rule(part, lambda handler: handler.answer(status, b"", {"Retry-After": "0"}), times=2)
    assert read(peer) == layer(peer)[1]


@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_what_does_not_pass_ends(peer: Hostile, part: str) -> None:
    peer.rule(part, lambda handler: handler.answer(500, b'{"errors": [{"code": "X", "message": "\\u001b[2Jno"}]}'))
    fails(peer, NetworkError, r"HTTP status 500 \(X: \[2Jno\) \(3 attempts\)")


def test_a_registry_that_wants_us_to_wait_for_hours(peer: Hostile) -> None:
    peer.rule("/manifests/", lambda handler: handler.answer(429, b"", {"Retry-After": "7200"}))
    fails(peer, NetworkError, "wants us to wait for 7200 seconds")


def test_tries_get_no_further_apart_than_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has it try very often does not want to wait for days."""
    waits: list[float] = []
    monkeypatch.setattr("composefs_oci.sources.registry.patience.sleep", waits.append)
    monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "1100")
    monkeypatch.setenv("COMPOSEFS_OCI_RETRY_DELAY", "1")
    patience = Patience(lambda _: None)
    for _ in range(1100):
        patience.wait(NetworkError("it fails", retryable=True))
    assert 120 <= max(waits) <= 150


@pytest.mark.parametrize("text", ["\xb2", "-1", "1_0", "9" * 5000, "0x10", " ", "+1", "nan"])
def test_numbers_that_are_none(peer: Hostile, text: str) -> None:
    peer.rule("/manifests/", lambda handler: handler.answer(503, b"", {"Retry-After": text}))
    fails(peer, NetworkError, r"HTTP status 503 \(3 attempts\)")
    peer.rules.clear()

    def announce(handler: Handler) -> None:
        data = layer(peer)[1] if "/blobs/" in handler.path else peer.layout.blobs[peer.layout.entries[0]["digest"]]
        handler.send_response(200)
        handler.send_header("Content-Length", text)
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True

    peer.rule("/v2/", announce)
    with suppress(ExtError):
        assert read(peer) == layer(peer)[1]


def test_waiting_is_told(peer: Hostile) -> None:
    told: list[str] = []
    peer.rule("/manifests/", lambda handler: handler.answer(429, b"", {"Retry-After": "1"}), times=1)
    read(peer, tell=told.append)
    [line] = told
    assert "trying again in 1 s" in line


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("how", ["silent", "drip", "hang up", "garbage"])
@pytest.mark.parametrize("part", ["/manifests/", "/blobs/"])
def test_peers_that_do_not_get_on(peer: Hostile, part: str, how: str) -> None:
    def badly(handler: Handler) -> None:
        handler.close_connection = True
        if how == "silent":
            handler.state.ending.wait(10)
        elif how == "garbage":
            handler.wfile.write(b"\0\1\2\3 no HTTP\r\n\r\n")
        elif how == "drip":
            size = len(layer(peer)[1]) if part == "/blobs/" else 700
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            while not handler.state.ending.wait(0.2):
                handler.wfile.write(b" ")

    peer.rule(part, badly)
    fails(peer, NetworkError, "no answer in time|less than 1000 bytes|connection broke|reset|attempts")


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("begins", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["header", "size of a chunk", "trailers", "continue"],
)
def test_peers_that_drip_what_is_no_body(peer: Hostile, begins: bytes, drop: bytes) -> None:
    def badly(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(begins)
        while not handler.state.ending.wait(0.1):
            handler.wfile.write(drop)

    peer.rule("/manifests/", badly)
    # Where the machine stands still for a second, nothing has dripped.
    fails(peer, NetworkError, r"(less than 1000 bytes a second for 1 seconds|no answer in time).* \(3 attempts\)")


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize(
    ("begins", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 60_000 + b"\r\n \r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["trailers", "extensions of chunks", "continue"],
)
def test_peers_that_flood_with_what_is_no_body(peer: Hostile, begins: bytes, drop: bytes) -> None:
    def badly(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(begins)
        while not handler.state.ending.is_set():
            handler.wfile.write(drop * (100_000 // len(drop)))

    peer.rule("/manifests/", badly)
    fails(peer, NetworkError, r"1048576 bytes, and next to nothing of the answer in them.* \(3 attempts\)")


def test_a_peer_that_puts_each_byte_into_a_chunk_of_its_own(peer: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_MAX_BESIDE", 20_000)
    digest, data = layer(peer)

    def bytewise(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in data:
            handler.wfile.write(b"1;a=b\r\n%c\r\n" % byte)
        handler.wfile.write(b"0\r\nX: y\r\n\r\n")

    peer.rule(f"/blobs/{digest}", bytewise)
    assert len(data) * 10 > 2 * http._MAX_BESIDE
    assert read(peer) == data
    assert len(peer.paths("/blobs/")) == 1


def test_a_peer_that_was_fast_is_not_waited_for_longer_when_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one given up that sends just enough, or the first byte late."""
    monkeypatch.setenv("COMPOSEFS_OCI_TIMEOUT", "2")
    now = 0.0
    monkeypatch.setattr(http, "monotonic", lambda: now)

    class Peer(io.RawIOBase):
        def readinto(self, buffer: Any, /) -> int:
            nonlocal now
            now += seconds
            return size

    seconds, size, buffer = 1000.0, 1, bytearray()
    paced = http._Paced(Peer())
    paced.left = 1 << 40
    paced.readinto(buffer)
    seconds = 0.5
    for size in (1 << 20, 500):
        assert [paced.readinto(buffer) for _ in range(400)] == [size] * 400
    size = 499
    with pytest.raises(SlowError, match="less than 1000 bytes a second for 2 seconds"):
        assert [paced.readinto(buffer) for _ in range(4)]


@pytest.mark.parametrize(
    "target",
    [
        *("/v2/app/manifests/1", "ftp://127.0.0.1/x", "file:///etc/passwd", "", "http://", "http://[::1"),
        *("http://x:99999/", "http://user:pw@127.0.0.1/", "//user@127.0.0.1:1/v2/", "https:///x"),
    ],
)
def test_redirects_that_lead_nowhere(peer: Hostile, target: str) -> None:
    peer.rule("/manifests/", lambda handler: handler.answer(307, b"", {"Location": target}))
    fails(peer, NetworkError, "redirects")


def test_a_redirect_does_not_take_the_secret_along(peer: Hostile, tmp_path: Path) -> None:
    digest, data = layer(peer)
    with hostile(peer.layout) as other:
        basic = {"WWW-Authenticate": 'Basic realm="x"'}
        peer.rule("/v2/app", lambda h: False if h.headers.get("Authorization") else h.answer(401, b"", basic))
        url = f"http://{other.host}/storage/{digest}?X-Signature={SECRET}"
        peer.rule("/blobs/", lambda handler: handler.answer(307, b"", {"Location": url}))
        authfile = login(peer, tmp_path / "auth.json")
        assert read(peer, authfile=authfile) == data
        assert all("Authorization" in headers for headers in peer.paths("/blobs/"))
        assert [headers.get("Authorization") for headers in other.paths("/storage/")] == [None]
        other.rule("/storage/", lambda handler: handler.answer(403, b"<Error>"))
        error = fails(peer, NetworkError, "redirected to .* HTTP status 403", authfile=authfile)
        assert other.host in error.message


def test_a_redirect_to_an_endless_path(peer: Hostile) -> None:
    """What came of it is still told."""
    with hostile(peer.layout) as other:
        there = f"http://{other.host}/{'x' * 50_000}"
        peer.rule("/blobs/", lambda handler: handler.answer(307, b"", {"Location": there}))
        other.rule("/x", lambda handler: handler.answer(403, b""))
        fails(peer, NetworkError, "redirected to .*xxx: HTTP status 403")


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_who_is_redirected_to_does_not_get_the_login_by_asking_for_it(
    peer: Hostile, tmp_path: Path, scheme: str
) -> None:
    authfile = login(peer, tmp_path / "auth.json")
    with hostile(peer.layout) as other:
        url = f"http://{other.host}/v2/app/tags/list"
        peer.rule("/tags/", lambda handler: handler.answer(307, b"", {"Location": url}))
        challenge = {"WWW-Authenticate": f'{scheme} realm="http://{other.host}/auth"'}
        other.rule("/tags/", lambda handler: handler.answer(401, b"", challenge))
        error = the_error("oci", "list-tags", "--tls-verify=false", f"--authfile={authfile}", peer.image, status=6)
        assert f"redirected to {url}: HTTP status 401 (no login is sent to where a registry redirects; if" in error
        assert error.endswith(f"it has moved, give {other.host})\n")
        assert [(path, headers.get("Authorization")) for path, headers in other.requests] == [
            ("/v2/app/tags/list", None)
        ]


def bearer(peer: Hostile, realm: str, **fields: str) -> None:
    """Want a token from there."""
    parameters = "".join(f',{name}="{value}"' for name, value in fields.items())
    challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"{parameters}'}
    peer.rule(
        "/v2/", lambda h: False if h.headers.get("Authorization") == "Bearer t0ken" else h.answer(401, b"", challenge)
    )


@pytest.mark.parametrize("place", ["/auth", "/auth?a=b", "/", ""])
@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_token_is_fetched_and_used(peer: Hostile, tmp_path: Path, name: str, place: str) -> None:
    bearer(peer, f"http://{peer.host}{place}", service="here", scope="repository:app:pull")
    peer.rule("scope=", lambda handler: handler.answer(200, json.dumps({name: "t0ken"}).encode()))
    assert read(peer) == layer(peer)[1]
    [asked] = [path for path, _ in peer.requests if not path.startswith("/v2/")]
    begin = f"{place or '/'}{'&' if '?' in place else '?'}"
    assert sorted(asked.removeprefix(begin).split("&")) == ["scope=repository%3Aapp%3Apull", "service=here"]
    assert peer.paths("scope=")[0].get("Authorization") is None

    peer.requests.clear()
    assert read(peer, authfile=login(peer, tmp_path / "auth.json")) == layer(peer)[1]
    assert peer.paths("scope=")[0]["Authorization"].startswith("Basic ")
    assert "account=somebody" in next(path for path, _ in peer.requests if "scope=" in path)


def test_an_identity_token_is_traded_in(peer: Hostile, tmp_path: Path) -> None:
    bearer(peer, f"http://{peer.host}/auth", service="here")
    peer.rule("/auth", lambda handler: handler.answer(200, b'{"access_token": "t0ken"}'))
    assert read(peer, authfile=login(peer, tmp_path / "auth.json", identitytoken=SECRET)) == layer(peer)[1]
    [asked] = [path for path, _ in peer.requests if path.startswith("/auth")]
    assert f"refresh_token={SECRET}" in asked
    assert "grant_type=refresh_token" in asked


def test_a_token_that_has_expired_is_renewed(peer: Hostile) -> None:
    _, data = layer(peer)
    bearer(peer, f"http://{peer.host}/auth")
    peer.rule("/auth", lambda handler: handler.answer(200, b'{"token": "t0ken"}'))
    expired = {"WWW-Authenticate": f'Bearer realm="http://{peer.host}/auth",error="invalid_token"'}
    peer.rules.insert(0, ("/blobs/", once(lambda handler: handler.answer(401, b"", expired))))
    assert read(peer) == data
    assert len(peer.paths("/auth")) == 2


def once(rule: Any) -> Any:
    left = [rule]
    return lambda handler: left.pop()(handler) if left else False


@pytest.mark.parametrize(
    "realm",
    ["file:///etc/passwd", "ftp://x/y", "", "http://user:pw@x/", "http://:pw@x/", "//x", "http://", "http://[x"],
)
def test_realms_that_are_not_gone_to(peer: Hostile, tmp_path: Path, realm: str) -> None:
    bearer(peer, realm)
    fails(peer, PermissionDeniedError, "not safe", authfile=login(peer, tmp_path / "auth.json"))


def tls(directory: Path) -> ssl.SSLContext:
    """Speak TLS with the certificate in a directory, which a client may show too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "ca.crt", directory / "server.key")
    context.load_verify_locations(directory / "ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def test_nothing_is_asked_for_without_tls_by_a_registry_that_speaks_it(peer: Hostile, tmp_path: Path) -> None:
    certificate(tmp_path)
    with hostile(peer.layout, tls(tmp_path)) as secure:
        known = [f"--cert-dir={tmp_path}", f"--authfile={login(secure, tmp_path / 'auth.json')}"]
        command = ["oci", "list-tags", *known, secure.image]
        bearer(secure, f"http://{peer.host}/auth")
        assert f"to 'http://{peer.host}/auth' for tokens, which is not safe" in the_error(*command, status=7)
        secure.rules.clear()
        url = f"http://{peer.host}/v2/app/tags/list"
        secure.rule("/tags/", lambda handler: handler.answer(307, b"", {"Location": url}))
        assert f"redirects to '{url}', which is not followed" in the_error(*command, status=6)
        secure.rules.clear()
        bearer(secure, f"https://{secure.host}/auth")
        secure.rule("/auth", lambda handler: handler.answer(200, b'{"token": "t0ken"}'))
        secure.rule("/tags/", lambda handler: handler.answer(200, tags("a")))
        assert cfsctl(*command).stdout == "a\n"
    assert peer.requests == []


def test_the_client_s_certificate_is_shown_to_the_registry_alone(peer: Hostile, tmp_path: Path) -> None:
    certificate(tmp_path)
    (tmp_path / "client.cert").write_bytes((tmp_path / "ca.crt").read_bytes())
    (tmp_path / "client.key").write_bytes((tmp_path / "server.key").read_bytes())
    shown: list[tuple[str, bool]] = []
    with hostile(peer.layout, tls(tmp_path)) as secure, hostile(peer.layout, tls(tmp_path)) as other:
        for each in (secure, other):
            each.rule("/", lambda h: shown.append((h.state.host, h.connection.getpeercert() is not None)) or False)
        url = f"https://{other.host}/v2/app/tags/list"
        secure.rule("/tags/", lambda handler: handler.answer(307, b"", {"Location": url}))
        other.rule("/tags/", lambda handler: handler.answer(200, tags("a")))
        assert cfsctl("oci", "list-tags", f"--cert-dir={tmp_path}", secure.image).stdout == "a\n"
        assert shown == [(secure.host, True), (other.host, False)]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"{}", NetworkError),
        (200, b"<html>", FormatError),
        (200, b'{"token": "a b"}', NetworkError),
        (200, b'{"token": "a\\r\\nX:y"}', NetworkError),
        (200, b'{"token": "\\u00e4"}', NetworkError),
        (200, b'{"token": 7}', FormatError),
        (200, b" " * (2 << 20), TooLargeError),
        (500, b"", NetworkError),
        (401, b"", PermissionDeniedError),
        (404, b"", NetworkError),
    ],
)
def test_token_services_that_give_none(peer: Hostile, status: int, body: bytes, error: type[ExtError]) -> None:
    bearer(peer, f"http://{peer.host}/auth")
    peer.rule("/auth", lambda handler: handler.answer(status, body))
    fails(peer, error, ".")


@pytest.mark.parametrize(("status", "times"), [(429, 3), (500, 3), (503, 3), (404, 1)])
def test_a_token_service_is_asked_again_if_that_may_help(peer: Hostile, status: int, times: int) -> None:
    bearer(peer, f"http://{peer.host}/auth")
    peer.rule("/auth", lambda handler: handler.answer(status, b""), times=2)
    peer.rule("/auth", lambda handler: handler.answer(200, b'{"token": "t0ken"}'))
    if times > 1:
        assert read(peer) == layer(peer)[1]
    else:
        fails(peer, NetworkError, f"HTTP status {status} instead of a token")
    assert len(peer.paths("/auth")) == times


def test_a_token_service_says_when_to_come_again(peer: Hostile) -> None:
    """As the registry itself does, and with the same remedies."""
    bearer(peer, f"http://{peer.host}/auth")
    peer.rule("/auth", lambda handler: handler.answer(429, b"", {"Retry-After": "7200"}))
    error = fails(peer, NetworkError, "429 instead of a token and wants us to wait for 7200 seconds")
    assert error.hint == f"try again later; who is logged in may often ask for more: skopeo login {peer.host}"
    assert len(peer.paths("/auth")) == 1


@pytest.mark.parametrize("challenge", ["", "Negotiate", 'Digest realm="x"', "Bearer", "x" * 60_000, '"\\', "Basic"])
def test_challenges_that_cannot_be_met(peer: Hostile, challenge: str) -> None:
    peer.rule("/v2/", lambda handler: handler.answer(401, b"", {"WWW-Authenticate": challenge}))
    fails(peer, ExtError, ".")


def test_a_token_that_does_not_help(peer: Hostile) -> None:
    peer.rule("/v2/", lambda h: h.answer(401, b"", {"WWW-Authenticate": f'Bearer realm="http://{peer.host}/auth"'}))
    peer.rule("/auth", lambda handler: handler.answer(200, b'{"token": "t0ken"}'))
    error = fails(peer, PermissionDeniedError, "wants to know who you are")
    assert "skopeo login" in (error.hint or "")


@pytest.mark.parametrize("size", [5 << 20, 1 << 40])
def test_manifests_without_end(peer: Hostile, size: int) -> None:
    peer.rule("/manifests/", lambda handler: handler.answer(200, b" " * (5 << 20), length=size))
    fails(peer, TooLargeError, "more than")


def test_a_manifest_with_another_digest(peer: Hostile) -> None:
    peer.rule(
        "/manifests/", lambda h: h.answer(200, b"{}", {"Docker-Content-Digest": peer.layout.entries[0]["digest"]})
    )
    fails(peer, CorruptError, "digest")
    reference = parse_reference(f"docker://{peer.host}/app@sha256:{'0' * 64}")
    with open_source(reference, Access(tls_verify=False)) as source, pytest.raises(CorruptError, match="digest"):
        source.manifest()


def test_documents_behind_descriptors_are_checked(peer: Hostile) -> None:
    entry = peer.layout.entries[0]
    right = Descriptor(entry["mediaType"], entry["digest"], entry["size"])
    with open_source(parse_reference(peer.image), Access(tls_verify=False)) as source:
        assert source.document(right).digest == entry["digest"]
        with pytest.raises(CorruptError, match="bytes, not"):
            source.document(right._replace(size=entry["size"] + 1))
        peer.rule("/manifests/", lambda handler: handler.answer(200, b"{}"))
        with pytest.raises(CorruptError, match="digest"):
            source.document(right)


@pytest.mark.parametrize(
    ("served", "said", "match"),
    [
        (INDEX, MANIFEST, "was served as"),
        (MANIFEST, INDEX, "was served as"),
        (INDEX, "", "belongs to a manifest"),
        ("text/html", "text/html", "neither"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", "", "schema 1"),
    ],
)
def test_manifests_of_another_type(peer: Hostile, served: str, said: str, match: str) -> None:
    """One document that is read as a manifest here and as an index elsewhere would be two images."""
    manifest = json.loads(peer.layout.blobs[peer.layout.entries[0]["digest"]])
    body = json.dumps({**manifest, "mediaType": said or None}).encode()
    peer.rule("/manifests/", lambda handler: handler.answer(200, body, {"Content-Type": served}))
    fails(peer, ExtError, match)


def tags(*names: str) -> bytes:
    return json.dumps({"name": "app", "tags": names}).encode()


def test_tags_come_in_pages(peer: Hostile) -> None:
    peer.rule("last=b", lambda handler: handler.answer(200, tags("b", "c")))
    link = {"Link": '</v2/app/tags/list?n=2&last=b>; rel="next"'}
    peer.rule("/tags/list", lambda handler: handler.answer(200, tags("a", "b"), link))
    with open_source(parse_reference(peer.image), Access(tls_verify=False)) as source:
        assert source.tags() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:1/v2/app/tags/list", "/v2/other/tags/list", "?n=1000", "file:///x", "//[x"]
)
def test_pages_that_lead_elsewhere_or_round(peer: Hostile, target: str) -> None:
    peer.rule("/tags/list", lambda h: h.answer(200, tags("a"), {"Link": f'<{target}>; rel="next"'}))
    with (
        open_source(parse_reference(peer.image), Access(tls_verify=False)) as source,
        pytest.raises(NetworkError, match="not followed"),
    ):
        source.tags()
    assert [path for path, _ in peer.requests] == ["/v2/app/tags/list?n=1000"]


@pytest.mark.parametrize("body", [tags("a\nb"), tags(""), tags("x" * 200), b'{"tags": {}}', b'{"tags": [1]}', b"[]"])
def test_tags_that_are_none(peer: Hostile, body: bytes) -> None:
    peer.rule("/tags/list", lambda handler: handler.answer(200, body))
    with open_source(parse_reference(peer.image), Access(tls_verify=False)) as source, pytest.raises(FormatError):
        source.tags()


def test_referrers_by_the_registry_s_own_list(peer: Hostile) -> None:
    digest = peer.layout.entries[0]["digest"]
    found = {
        "mediaType": peer.layout.entries[0]["mediaType"],
        "digest": digest,
        "size": 7,
        "artifactType": "application/x",
    }
    body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [found]}).encode()
    peer.rule("/referrers/", lambda handler: handler.answer(200, body, {"Content-Type": INDEX}))
    with open_source(parse_reference(peer.image), Access(tls_verify=False)) as source:
        assert [each.artifact_type for each in source.referrers(digest)] == ["application/x"]
        peer.rules.clear()
        assert source.referrers(digest) == []  # neither list nor tag


def test_referrers_that_lead_round(peer: Hostile, tmp_path: Path) -> None:
    """Whatever is asked for, the registry says that the image refers to it."""
    entry = {key: peer.layout.entries[0][key] for key in ("mediaType", "digest", "size")}
    body = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    peer.rule("/referrers/", lambda handler: handler.answer(200, body, {"Content-Type": INDEX}))
    command = ("oci", "pull", "--tls-verify=false", "--referrers", peer.image, "app")
    cfsctl("--repo", init(tmp_path / "repo"), *command)
    assert len(peer.paths("/referrers/")) == 2


def test_a_tag_for_referrers_that_has_something_else(peer: Hostile) -> None:
    digest = peer.layout.entries[0]["digest"]
    data = peer.layout.blobs[digest]
    peer.rule(digest.replace(":", "-"), lambda handler: handler.answer(200, data, {"Content-Type": MANIFEST}))
    with (
        open_source(parse_reference(peer.image), Access(tls_verify=False)) as source,
        pytest.raises(UnsupportedError, match="is not a list of referrers"),
    ):
        source.referrers(digest)


def test_lists_without_end(peer: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is a new one, and leads on."""
    module = "composefs_oci.sources.registry.source"

    def page(handler: Handler) -> None:
        number = len(peer.requests)
        entry = {"mediaType": MANIFEST, "digest": f"sha256:{number:064}", "size": 7}
        body = {"tags": [f"t{number}"]} if "/tags/" in handler.path else {"schemaVersion": 2, "manifests": [entry]}
        headers = {"Link": f'<?last={number}>; rel="next"', "Content-Type": INDEX}
        handler.answer(200, json.dumps(body).encode(), headers)

    peer.rule("/tags/", page)
    peer.rule("/referrers/", page)
    with open_source(parse_reference(peer.image), Access(tls_verify=False)) as source:
        for limit, error, words in (
            ("_MAX_TAGS", FormatError, "more than 7 tags"),
            ("_MAX_REFERRERS", FormatError, "more than 7 referrers"),
            ("_MAX_PAGES", NetworkError, "more than 7 pages"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(f"{module}.{limit}", 7)
                peer.requests.clear()
                with pytest.raises(error, match=words):
                    source.referrers("sha256:" + "0" * 64) if "REF" in limit else source.tags()
                assert len([path for path, _ in peer.requests if "last=" in path]) == (6 if "PAGES" in limit else 7)


def test_files_of_the_user_that_are_named_pipes(peer: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody will write to them: to wait would be to hang."""
    peer.rule("/v2/", lambda handler: handler.answer(401, b"", {"WWW-Authenticate": "Basic realm=x"}))
    for name in ("auth.json", "home/.docker/config.json", "ca/a.crt", "client/a.cert", "client/a.key"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(tmp_path / name)
    with pytest.raises(FormatError, match=r"auth\.json is not a regular file") as caught:
        read(peer, authfile=str(tmp_path / "auth.json"))
    assert caught.value.hint == "put a file there, or nothing"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(FormatError, match=r"config\.json is not a regular file"):
        read(peer)
    for name in ("ca/a.crt", "client/a.cert"):
        access = Access(cert_dir=str((tmp_path / name).parent))
        with (
            pytest.raises(FormatError, match=f"{name} is not a regular file"),
            open_source(parse_reference(peer.image), access) as source,
        ):
            source.manifest()


HELPERS = {
    "rubbish": "echo no JSON",
    "nobody": 'echo "{}"',
    "number": """echo '{"Username": "a", "Secret": 7}'""",
    "endless": "head -c 2000000 /dev/zero",
    "refusing": "echo denied; exit 1",
}
"""Credential helpers that give none: what each does."""

LOGINS: dict[str, tuple[dict[str, Any], type[ExtError], str]] = {
    "a helper by a path": ({"credsStore": "../rubbish"}, FormatError, "cannot be the name of a credential helper"),
    "a helper that is not there": ({"credsStore": "none"}, NotFoundError, "docker-credential-none is not in PATH"),
    "a helper that says nothing": ({"credsStore": "rubbish"}, FormatError, "something else than credentials"),
    "a helper that names nobody": ({"credsStore": "nobody"}, FormatError, "something else than credentials"),
    "a helper with a number": ({"credsStore": "number"}, FormatError, "something else than credentials"),
    "a helper without end": ({"credsStore": "endless"}, TooLargeError, "answered with 2000000 bytes"),
    "a helper that fails": ({"credsStore": "refusing"}, ExtError, "failed for .* with exit status 1"),
    "no base64": ({"auths": {"HOST": {"auth": "c29t!ZWJvZHk6cA=="}}}, FormatError, "auth is not base64"),
    "no password": ({"auths": {"HOST": {"auth": "c29tZWJvZHk="}}}, FormatError, "auth has no password"),
}


@pytest.mark.parametrize("what", LOGINS)
def test_logins_that_are_none(peer: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    settings, error, words = LOGINS[what]
    for name, does in HELPERS.items():
        (tmp_path / f"docker-credential-{name}").write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / f"docker-credential-{name}").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    peer.rule("/v2/", lambda handler: handler.answer(401, b"", {"WWW-Authenticate": "Basic realm=x"}))
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps(settings).replace("HOST", peer.host))
    with pytest.raises(error, match=words):
        read(peer, authfile=str(authfile))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"auths": 7}', '{"auths": {"x/app": 7}}'])
def test_a_file_of_logins_that_is_damaged(peer: Hostile, tmp_path: Path, content: str) -> None:
    """It is the user's own, so nobody else can help."""
    peer.rule("/v2/", lambda handler: handler.answer(401, b"", {"WWW-Authenticate": "Basic realm=x"}))
    authfile = tmp_path / "auth.json"
    authfile.write_text(content.replace("x/", f"{peer.host}/"))
    told = the_error("oci", "list-tags", "--tls-verify=false", f"--authfile={authfile}", peer.image, status=5)
    assert told.startswith(f"cfsctl: {authfile}")
    assert told.endswith(" (mend or remove the file: skopeo login writes it)\n")


def test_a_login_that_is_no_text(peer: Hostile, tmp_path: Path) -> None:
    peer.rule("/v2/", lambda handler: handler.answer(401, b"", {"WWW-Authenticate": "Basic realm=x"}))
    for entry in ({"username": "\ud800"}, {"username": "a", "password": "\udfff"}, {"identitytoken": "\udc00"}):
        with pytest.raises(FormatError, match="the login is not text"):
            read(peer, authfile=login(peer, tmp_path / "auth.json", **entry))


def test_netrc_is_not_used(peer: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    (Path(os.environ["HOME"]) / ".netrc").write_text(f"machine 127.0.0.1 login a password {SECRET}\n")
    assert read(peer) == layer(peer)[1]
    assert all("Authorization" not in headers for _, headers in peer.requests)


def test_not_found_shows_what_the_registry_says_without_control_characters(peer: Hostile) -> None:
    peer.layout.entries[0]["digest"] = "sha256:" + "0" * 64
    fails(peer, NotFoundError, r"NAME_UNKNOWN: not here\[2J")


def test_proxies_of_the_environment(peer: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = peer.host, "registry.example:5000"
    with proxy("user:hunter2", {far: near}) as (url, asked):
        with_login = url.replace("//", "//user:hunter2@")
        monkeypatch.setenv("http_proxy", with_login)
        monkeypatch.setenv("https_proxy", with_login)  # by which it is asked whether it speaks TLS
        assert read(peer) == layer(peer)[1]
        assert asked == []
        peer.host = far
        assert read(peer) == layer(peer)[1]
        assert asked[0] == f"CONNECT {far}"
        assert {line.split("/v2/")[0] for line in asked[1:]} == {f"GET http://{far}"}
        monkeypatch.setenv("http_proxy", url)
        fails(peer, NetworkError, r"the proxy wants to know who you are, or does not know you \(HTTP status 407\)")
    place = url.removeprefix("http://")
    fails(peer, NetworkError, rf"the proxy {place} cannot be used: Connection refused \(3 attempts\)")
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(UnsupportedError, match="is not one at http") as caught:
        read(peer)
    assert caught.value.hint == "see http_proxy, else all_proxy, in the environment"


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("localhost:5000", ""),
        ("127.1.2.3", ""),
        ("[::1]:5000", ""),
        ("192.0.2.7:5000", "example.org, 192.0.2.0/24"),
        ("192.0.2.7:5000", "192.0.2.7"),
        ("[2001:db8::7]:5000", "2001:DB8:0::7"),
        ("registry.example:5000", "example"),
        ("registry.example:5000", ".example:5000"),
        ("registry.example", "*"),
    ],
)
def test_hosts_that_are_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str) -> None:
    monkeypatch.setenv("no_proxy", no_proxy)
    assert proxy_for(urlsplit("https://192.0.3.7/")) is None
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert proxy_for(urlsplit("http://192.0.3.7/")) is None
    assert proxy_for(urlsplit(f"https://{host}/v2/")) is None
    for each in ("https://192.0.3.7/", "https://[2001:db8::8]/", "https://localhost.org/", "https://anexample/"):
        assert no_proxy == "*" or proxy_for(urlsplit(each)) is not None


@pytest.mark.parametrize(
    ("login", "sent"), [("u@", b"u:"), ("u:@", b"u:"), ("u:p@", b"u:p"), ("u%40x:p%3A@", b"u@x:p:"), ("", None)]
)
def test_the_login_of_a_proxy(monkeypatch: pytest.MonkeyPatch, login: str, sent: bytes | None) -> None:
    monkeypatch.setenv("https_proxy", f"http://{login}proxy.example")
    found = proxy_for(urlsplit("https://192.0.3.7/"))
    assert found is not None
    assert found[:2] == ("proxy.example", 80)
    headers = {} if sent is None else {"Proxy-Authorization": f"Basic {base64.b64encode(sent).decode()}"}
    assert found.headers == headers


def test_a_silent_address_keeps_no_connection_waiting(peer: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """How is told by tests/unit/test_oci_connecting.py; this is that it is done so, with a proxy too."""
    places = []

    def connect(place: tuple[str, int], *words: Any) -> socket.socket:
        places.append("{}:{}".format(*place))
        return connecting.connect(place, *words)

    monkeypatch.setattr(http, "connect", connect)
    assert read(peer) == layer(peer)[1]
    assert set(places) == {peer.host}
    near, peer.host = peer.host, "registry.example:5000"
    with proxy(places={peer.host: near}) as (url, _):
        monkeypatch.setenv("https_proxy", url)
        monkeypatch.setenv("http_proxy", url)
        assert read(peer) == layer(peer)[1]
    assert set(places) == {near, url.removeprefix("http://")}


def test_connections_are_used_again(peer: Hostile) -> None:
    ports = []
    peer.rule("/v2/", lambda handler: bool(ports.append(handler.client_address[1])))
    with open_source(parse_reference(peer.image), Access(tls_verify=False)) as source:
        for _ in range(3):
            source.manifest()
    assert len(ports) == 3
    assert len(set(ports)) == 1


def test_a_connection_that_was_closed_meanwhile_is_not_used_again(
    peer: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry that has had nothing to do for a while may close it, without a word before."""
    monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "0")
    ports = []

    def close(handler: Handler) -> bool:
        ports.append(handler.client_address[1])
        handler.close_connection = True
        return False

    peer.rule("/v2/", close)
    client = http.Http(Trust(verify=False, client=None), peer.host)
    for _ in range(3):
        with client.get(f"http://{peer.host}/v2/app/manifests/1") as response:
            assert response.read_all(1 << 20)
        [[connection]] = client._idle.values()
        assert select.select([connection.sock], [], [])[0]
    client.close()
    assert len(set(ports)) == 3


def test_connections_are_closed_while_a_thread_makes_others(peer: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does that is not waited for when the user has had enough."""
    client = http.Http(Trust(verify=False, client=None), peer.host)

    def ask(host: str) -> None:
        with client.get(f"http://{host}/v2/app/manifests/1") as response:
            assert response.read_all(1 << 20)

    ask(peer.host)
    [[connection]] = client._idle.values()
    close = connection.close

    def meanwhile() -> None:
        ask(peer.host.replace("127.0.0.1", "localhost"))
        close()

    monkeypatch.setattr(connection, "close", meanwhile)
    client.close()
