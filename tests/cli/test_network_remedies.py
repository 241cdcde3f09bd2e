"""What answers in the place of a server: proxies, pages of networks that want a login, redirects, requests to wait."""

from __future__ import annotations

import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from support.commands import CFSCTL, TIMEOUT, cfsctl, the_error
from support.nginx import Certificates, nginx
from support.oci_layout import Layout, tar
from support.ostree_pull import Target, extensions, start_by
from support.ostree_repo import BRANCH
from support.proxy import proxy
from support.remotes import certificates, machine, remote, source
from support.server import Fault, listening, reserved_port, serve

__all__ = ["certificates", "extensions", "machine", "source"]

pytestmark = pytest.mark.usefixtures("extensions", "machine")

PAGE = b"\n<!DOCTYPE html>\n<html><body>Welcome to the hotel</body></html>\n"
LOGIN = "http://USER:PASSWORD@HOST:PORT"


@pytest.fixture(autouse=True)
def retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "2")
    monkeypatch.setenv("COMPOSEFS_OCI_RETRY_DELAY", "0.01")


def ostree_error(target: Target, url: str, status: int = 6) -> str:
    return the_error("--repo", target.path, "ostree", "pull", url, "main", status=status)


def oci_command(target: Target, url: str) -> tuple[str | Path, ...]:
    """A pull of ``app:1`` from a registry at a URL, which says whether it speaks TLS."""
    scheme, _, place = url.partition("://")
    verify = f"--tls-verify={'true' if scheme == 'https' else 'false'}"
    return ("--repo", target.path, "oci", "pull", verify, f"docker://{place}/app:1")


def test_a_page_in_the_place_of_everything(tmp_path: Path, target: Target) -> None:
    with serve(tmp_path) as server:
        server.fault("*", Fault(body=PAGE))
        (tmp_path / "config").touch()
        (tmp_path / "v2/app/manifests").mkdir(parents=True)
        (tmp_path / "v2/app/manifests/1").touch()
        for told in (
            ostree_error(target, server.url, status=3),
            the_error(*oci_command(target, server.url), status=5),
        ):
            assert "is a web page, not " in told
            assert "a network that wants a login may answer with its own page for everything)" in told
    assert target.left_over() == []


def test_a_network_that_says_that_it_wants_a_login(tmp_path: Path, target: Target) -> None:
    with serve(tmp_path) as server:
        server.fault("*", Fault(status=511, body=PAGE))
        told = [ostree_error(target, server.url), the_error(*oci_command(target, server.url), status=6)]
        assert server.requests == ["/config", "/v2/app/manifests/1"]
    assert all(
        each.endswith(": HTTP status 511 (the network wants a login: open any web page in a browser)\n")
        for each in told
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_login(target: Target, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with proxy("user:word") as (url, asked):
        monkeypatch.setenv(f"{scheme}_proxy", url)
        for told in (
            ostree_error(target, f"{scheme}://example.com"),
            the_error(*oci_command(target, f"{scheme}://example.com"), status=6),
        ):
            assert "the proxy wants to know who you are" in told
            assert "407" in told
            assert LOGIN in told
            assert "attempts" not in told
    assert not asked


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there(target: Target, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    with reserved_port() as port:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://127.0.0.1:{port}")
        told = ostree_error(target, f"{scheme}://example.com")
        of_oci = the_error(*oci_command(target, f"{scheme}://example.com"), status=6)
    assert "over proxy 127.0.0.1" in told or f"127.0.0.1:{port}" in told
    assert f": the proxy 127.0.0.1:{port} cannot be used: Connection refused (3 attempts) (" in of_oci
    assert "https_proxy, http_proxy, all_proxy and no_proxy" in told
    assert "https_proxy, http_proxy, all_proxy and no_proxy" in of_oci
    monkeypatch.setenv(f"{scheme}_proxy", "http://proxy.invalid:3128")
    assert "no_proxy in the environment" in ostree_error(target, f"{scheme}://example.com")
    of_oci = the_error(*oci_command(target, f"{scheme}://example.com"), status=6)
    assert ": the proxy proxy.invalid:3128 cannot be used: its name is not known (3 attempts) (" in of_oci


def test_a_proxy_that_does_not_get_there(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it refuses stays refused; a server that does not answer it may be there soon."""
    places = {"example.com:443": "403", "example.net:443": "511"}
    with reserved_port() as port, proxy(places=places) as (url, asked):
        places["example.org:443"] = f"127.0.0.1:{port}"
        monkeypatch.setenv("https_proxy", url)
        for host, said in (("example.com", "403)"), ("example.net", "511)"), ("example.org", "502) (3 attempts)")):
            refused = f"refuses the connection (HTTP status {said} (see "
            told = ostree_error(target, f"https://{host}")
            assert told.startswith(f"cfsctl: https://{host}/config: the proxy {refused}the remote's proxy setting, or ")
            assert f"{refused}https_proxy, " in the_error(*oci_command(target, f"https://{host}"), status=6)
    assert len(asked) == 2 + 2 + 6


def test_a_proxy_that_calls_it_401_to_want_a_login(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy(places={"example.com:443": "401"}) as (url, _):
        monkeypatch.setenv("https_proxy", url)
        for told in (
            ostree_error(target, "https://example.com"),
            the_error(*oci_command(target, "https://example.com"), status=6),
        ):
            assert "401" in told
            assert LOGIN in told


def test_a_proxy_of_socks_that_refuses(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.connection.recv(100)
            self.connection.sendall(b"\x05\xff")

    with listening(Handler) as place:
        monkeypatch.setenv("all_proxy", f"socks5h://{place}")
        told = ostree_error(target, "http://example.com")
    assert "(see the remote's proxy setting, or https_proxy, http_proxy, all_proxy and no_proxy" in told
    assert "attempts" not in told


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid"])
def test_a_server_that_is_not_there(target: Target, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Who has mistyped it need not wait, unless he wants to."""
    monkeypatch.delenv("COMPOSEFS_OSTREE_RETRIES")
    monkeypatch.delenv("COMPOSEFS_OCI_RETRIES")
    with reserved_port() as port:
        url = f"http://{host}:{port}"
        assert " (3 attempts) (" in ostree_error(target, url)
        assert " (3 attempts) (" in the_error(*oci_command(target, url), status=6)
        told = the_error("--repo", target.path, "ostree", "pull", "--network-retries=4", url, "main", status=6)
        assert " (5 attempts) (" in told
        monkeypatch.setenv("COMPOSEFS_OCI_RETRIES", "4")
        assert " (5 attempts) (" in the_error(*oci_command(target, url), status=6)


def test_a_server_that_is_there_and_never_answers(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not been mistyped, so it is tried as often as one that has answered."""
    monkeypatch.delenv("COMPOSEFS_OSTREE_RETRIES")
    with serve(tmp_path) as server:
        server.fault("*", Fault(close=True))
        assert " (6 attempts) (" in ostree_error(target, server.url)
        assert server.requests == ["/config"] * 6


@pytest.mark.parametrize("extension", ["ostree", "oci"])
def test_a_server_that_is_started_again(
    tmp_path: Path, target: Target, source: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    """In the middle of a pull, nobody listening is what may pass."""
    for name in ("OSTREE", "OCI"):
        monkeypatch.delenv(f"COMPOSEFS_{name}_RETRIES")
        monkeypatch.setenv(f"COMPOSEFS_{name}_RETRY_DELAY", "0.3")  # more than a second at the third failure
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}"
        command: tuple[str | Path, ...] = ("--repo", target.path, "ostree", "pull", url, BRANCH)
        root, inside = source, "/objects/*"
        if extension == "oci":
            command = oci_command(target, url)
            root, inside = registry_files(tmp_path), "*/blobs/*"
        with serve(root, port) as server:
            server.fault(inside, Fault(close=True))
            process = subprocess.Popen([CFSCTL, *command], stderr=subprocess.PIPE, text=True)
            while not server.count(inside):
                assert process.poll() is None
        assert process.stderr is not None
        assert "; trying again in 1 s" in process.stderr.readline()
        with serve(root, port):
            assert "cfsctl: " not in process.communicate(timeout=TIMEOUT)[1]
    assert process.returncode == 0


def test_a_tls_server_that_is_started_again(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has spoken TLS before, so that being cut off while it is greeted is what may pass."""
    with nginx(tmp_path / "nginx", source, certificates=certificates) as server, proxy(cut=1) as (url, asked):
        monkeypatch.setenv("https_proxy", url)
        remote(target, server.url, f"--set=tls-ca-path={certificates.ca}")
        target.ostree("pull", "o", BRANCH)
    assert len(asked) > 2
    with nginx(tmp_path / "other", source, certificates=certificates) as server, proxy(cut=0) as (url, asked):
        monkeypatch.setenv("https_proxy", url)
        remote(target, server.url, f"--set=tls-ca-path={certificates.ca}")
        assert "check scheme and port of the URL" in ostree_error(target, "o")
    assert len(asked) == 1


def test_a_redirect_to_what_does_not_speak_tls(target: Target, source: Path) -> None:
    """That lasts: who has answered before is not who fails."""
    with serve(source) as server:
        there = server.url.replace("http:", "https:")
        server.fault("*.filez", Fault(status=302, headers=(("Location", there),)))
        told = the_error("--repo", target.path, "ostree", "pull", server.url, BRANCH, status=6)
    assert "check scheme and port of the URL" in told
    assert "attempts" not in told


def test_a_redirect_to_a_host_that_refuses(tmp_path: Path, target: Target, source: Path) -> None:
    """Who is to be asked for a login, or does not answer, is another one than the URL names."""
    with serve(source) as server, serve(tmp_path) as other:
        there = other.url.replace("://", "://user:word@")
        server.fault("*.filez", Fault(status=302, headers=(("Location", f"{there}/file?key=word"),)))
        for fault, said in (
            (Fault(status=401), "access refused (HTTP status 401) (no login of a remote's file goes to where a "),
            (Fault(status=500), "HTTP status 500 (3 attempts) ("),
            (Fault(close=True), "Empty reply from server (3 attempts) ("),
        ):
            other.forgive()
            other.fault("*", fault)
            told = the_error("--repo", target.path, "ostree", "pull", server.url, BRANCH, status=6)
            assert f".filez: redirected to {other.url}: {said}" in told
            assert "word" not in told
        server.forgive()
        server.fault("*.filez", Fault(status=302, headers=(("Location", "/nowhere"),)))
        server.fault("/nowhere", Fault(status=401))
        told = the_error("--repo", target.path, "ostree", "pull", server.url, BRANCH, status=6)
        assert ".filez: access refused (HTTP status 401) (the server wants to know who you are: " in told


def test_a_redirect_to_a_host_with_an_endless_name(target: Target, source: Path) -> None:
    """What came of it is still told."""
    with serve(source) as server:
        server.fault("*.filez", Fault(status=302, headers=(("Location", f"http://{'x' * 50_000}/file"),)))
        told = the_error("--repo", target.path, "ostree", "pull", server.url, BRANCH, status=6)
    assert ".filez: redirected to http://xxx" in told
    assert "xxx: Could not resolve host: xxx" in told
    assert told.endswith(": it goes on where it stopped)\n")
    assert len(told) < 1000


def test_a_server_that_refuses_a_commit(target: Target, source: Path) -> None:
    """It may be one that says so of what is not there, or one that wants a login."""
    with serve(source) as server:
        server.fault("*.commit", Fault(status=403))
        told = the_error("--repo", target.path, "ostree", "pull", server.url, BRANCH, status=3)
    assert ".commit: the repository does not have the commit " in told
    assert " or be refused to you; " in told


def registry_files(directory: Path) -> Path:
    """What a web server has to serve to be a registry with ``app:1``."""
    layout = Layout()
    manifest = layout.image(tar(file=b"text\n"))
    for part in ("manifests", "blobs"):
        (directory / "v2/app" / part).mkdir(parents=True)
    (directory / "v2/app/manifests/1").write_bytes(layout.blobs[manifest["digest"]])
    for name, data in layout.blobs.items():
        (directory / "v2/app/blobs" / name).write_bytes(data)
    return directory


def test_redirects_that_are_not_followed(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates
) -> None:
    with serve(source) as plain:
        redirect = f"location /config {{ return 302 {plain.url}/config; }}"
        with nginx(tmp_path / "nginx", source, redirect, certificates) as server:
            remote(target, server.url, f"--set=tls-ca-path={certificates.ca}")
            told = ostree_error(target, "o")
        assert plain.requests == []
        assert f"{server.url}/config: " in told
        assert (
            "redirects to where nobody follows: that is done to http and https, and from https to https alone" in told
        )
        plain.fault("/config", Fault(status=302, headers=(("Location", "/config"),)))
        assert "(the server redirects in circles: " in ostree_error(target, plain.url)


def test_a_server_that_sends_us_away_for_long(tmp_path: Path, target: Target) -> None:
    with serve(tmp_path) as server:
        server.fault("*", Fault(status=429, headers=(("Retry-After", "9000"),)))
        told = ostree_error(target, server.url)
        assert "HTTP status 429, and the server wants us to wait for 9000 seconds (" in told
        assert "--network-retries" not in told  # which would not be tried, however many there were
        told = the_error(*oci_command(target, server.url), status=6)
        assert "HTTP status 429 and wants us to wait for 9000 seconds (" in told
        assert f"skopeo login {server.url.removeprefix('http://')})" in told
        assert server.requests.count("/config") == server.count("*/manifests/1") == 1


def test_a_server_that_limits_the_rate_of_requests(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says 429, or 503, and not for how long: what ends then goes through if it is tried more often."""
    monkeypatch.setenv("COMPOSEFS_OSTREE_RETRIES", "1")
    for status, said in ((429, "the server has had too many requests"), (503, "the server has a problem")):
        with serve(tmp_path) as server:
            server.fault("*", Fault(status=status))
            told = ostree_error(target, server.url)
            assert f": HTTP status {status} (2 attempts) ({said}; try again later, or more often: --network-re" in told
            told = the_error(*oci_command(target, server.url), status=6)
            assert f": HTTP status {status} (3 attempts) (try again later, or more often: COMPOSEFS_OCI_RETRI" in told


def test_a_pycurl_that_cannot_tell_for_how_long(
    source: Path, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Debian 13's: whatever a server has not got, such as a delta, is asked for that too."""
    statement = 'from composefs_ostree.remotes.curl import pycurl; vars(pycurl).pop("RETRY_AFTER", None)'
    start_by(statement, "ostree", tmp_path / "ext", monkeypatch)
    with serve(source) as server:
        target.ostree("pull", server.url, BRANCH)
        server.fault("*", Fault(status=429, headers=(("Retry-After", "9000"),)))
        assert "HTTP status 429 (" in ostree_error(target, server.url)


@pytest.mark.parametrize("pattern", ["/config", "*.dirtree", "*.filez"])
def test_a_server_that_sends_us_away_for_a_while(target: Target, source: Path, pattern: str) -> None:
    """Of files, which other processes fetch, that is told as well."""
    with serve(source) as server:
        server.fault(pattern, Fault(status=429, headers=(("Retry-After", "1"),)), times=1)
        told = target.ostree("pull", server.url, BRANCH).stderr
    assert told.startswith(f"warning: {server.url}/")
    assert told.endswith(": HTTP status 429; trying again in 1 s\n")


def test_a_registry_that_sends_us_away_for_a_while(tmp_path: Path, target: Target) -> None:
    """Nobody has to guess what the command is waiting for."""
    with serve(tmp_path) as server:
        server.fault("*", Fault(status=429, headers=(("Retry-After", "1"),)), times=1)
        told = cfsctl(*oci_command(target, server.url), status=3).stderr
        assert told.startswith(f"warning: {server.url}/v2/app/manifests/1: HTTP status 429; trying again in 1 s\n")
