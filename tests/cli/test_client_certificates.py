"""Servers that want a client certificate: that is what is told, with how to give one, and not after many attempts."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pycurl
import pytest

from support.commands import run, the_error
from support.nginx import Certificates, nginx
from support.ostree_pull import Target, extensions, start_by
from support.ostree_repo import BRANCH
from support.peers import require
from support.remotes import certificates, machine, remote, source
from support.server import Fault, listening, serve

__all__ = ["certificates", "extensions", "machine", "source"]

pytestmark = pytest.mark.usefixtures("extensions", "machine")

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
WANTED = "wants a client certificate ("
NOT_TAKEN = "does not take the client certificate"
HOW_FOR_OSTREE = ("cfsctl ostree remote add --force", "tls-client-cert-path", "tls-client-key-path")
HOW_FOR_OCI = ("NAME.cert", "NAME.key", "/etc/containers/certs.d/HOST:PORT", "--cert-dir")


@contextmanager
def demanding(certificates: Certificates, version: ssl.TLSVersion) -> Iterator[tuple[str, list[object]]]:
    """A server that ends connections without a certificate that it takes; yield localhost:PORT and its handshakes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version
    handshakes: list[object] = []
    context.sni_callback = lambda *words: handshakes.append(words)
    with listening(BaseHTTPRequestHandler, context) as place:
        yield place.replace("127.0.0.1", "localhost"), handshakes


def ostree_options(certificates: Certificates, pair: tuple[Path, Path] | None = None) -> list[str]:
    """Settings of a remote that knows the server, and has a certificate and a key of its own if they are given."""
    known = [f"--set=tls-ca-path={certificates.ca}"]
    if pair is None:
        return known
    return [*known, f"--set=tls-client-cert-path={pair[0]}", f"--set=tls-client-key-path={pair[1]}"]


def certificate_directory(path: Path, certificates: Certificates, pair: tuple[Path, Path] | None = None) -> Path:
    """The same as a directory for --cert-dir."""
    path.mkdir()
    shutil.copy(certificates.ca, path / "ca.crt")
    for file, suffix in zip(pair or (), ("cert", "key"), strict=False):
        shutil.copy(file, path / f"client.{suffix}")
    return path


def stranger(certificates: Certificates) -> tuple[Path, Path]:
    """A certificate that the server does not know, and its key."""
    return certificates.other, certificates.other.with_suffix(".key")


def ostree_error(target: Target, url: str, *options: str, status: int = 6) -> str:
    remote(target, url, *options)
    return the_error("--repo", target.path, "ostree", "pull", "o", "main", status=status)


def oci_error(target: Target, place: str, directory: Path, status: int = 6) -> str:
    image = f"docker://{place}/app:1"
    return the_error("--repo", target.path, "oci", "pull", f"--cert-dir={directory}", image, status=status)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_ostree_server_that_ends_the_connection(
    target: Target, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    with demanding(certificates, version) as (place, handshakes):
        told = ostree_error(target, f"https://{place}", *ostree_options(certificates))
    assert told.startswith(f"cfsctl: https://{place}/config: ")
    assert "wants a client certificate (" in told
    assert all(word in told for word in HOW_FOR_OSTREE[1:])
    assert len(handshakes) <= 2


@pytest.mark.parametrize("is_asked", [True, False])
def test_an_ostree_server_that_hangs_up_and_says_nothing(
    target: Target, source: Path, certificates: Certificates, *, is_asked: bool
) -> None:
    """As an alert may be lost, a certificate is what it wants if it has asked for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_OPTIONAL if is_asked else ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # as of one that demands it: a session that goes on is not asked again
    with serve(source, tls=context) as server:
        server.fault("*", Fault(close=True))
        told = ostree_error(target, server.url, *ostree_options(certificates))
        count = server.count("/config")
        # One that is shown a certificate may have other reasons, which may pass.
        server.forgive()
        server.fault("*", Fault(close=True), times=2)
        remote(target, server.url, *ostree_options(certificates, certificates.client))
        target.ostree("pull", "o", BRANCH)
    is_seen = is_asked and "GnuTLS" not in pycurl.version  # with which libcurl does not tell what was asked
    assert (WANTED in told) is is_seen
    assert count == (2 if is_seen else 3)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_registry_that_ends_the_connection(
    tmp_path: Path, target: Target, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    with demanding(certificates, version) as (place, handshakes):
        told = oci_error(target, place, certificate_directory(tmp_path / "certs", certificates))
    assert told.startswith(f"cfsctl: https://{place}/v2/app/manifests/1: ")
    assert "wants a client certificate" in told
    assert all(word in told for word in HOW_FOR_OCI)
    assert len(handshakes) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_certificates_that_are_not_taken(
    tmp_path: Path, target: Target, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    with demanding(certificates, version) as (place, handshakes):
        told = oci_error(target, place, certificate_directory(tmp_path / "c", certificates, stranger(certificates)))
        assert len(handshakes) == 1
        assert f"{NOT_TAKEN}: unknown ca (the *.cert in " in told
        told = ostree_error(target, f"https://{place}", *ostree_options(certificates, stranger(certificates)))
    assert NOT_TAKEN in told
    assert "tls-client-cert-path of the remote has to name one" in told


def test_servers_that_say_so_in_a_page(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates
) -> None:
    with nginx(tmp_path / "nginx", source, certificates=certificates, clients=True) as server:
        place = server.url.removeprefix("https://")
        told = [
            ostree_error(target, server.url, *ostree_options(certificates)),
            oci_error(target, place, certificate_directory(tmp_path / "a", certificates)),
            ostree_error(target, server.url, *ostree_options(certificates, stranger(certificates))),
            oci_error(target, place, certificate_directory(tmp_path / "b", certificates, stranger(certificates))),
        ]
        remote(target, server.url, *ostree_options(certificates, certificates.client))
        target.ostree("pull", "o", BRANCH)
        requests = [line[3] for line in server.log()]
    assert f"{server.url}/config: the server {WANTED}" in told[0]
    assert all(word in told[0] for word in HOW_FOR_OSTREE)
    assert f"{server.url}/v2/app/manifests/1: the registry {WANTED}" in told[1]
    assert all(word in told[1] for word in HOW_FOR_OCI)
    assert NOT_TAKEN in told[2]
    assert NOT_TAKEN in told[3]
    assert requests[:4] == [
        f"GET {path} HTTP/{version}" for path, version in (("/config", "2.0"), ("/v2/app/manifests/1", "1.1")) * 2
    ]


def test_a_key_that_cannot_be_used(tmp_path: Path, target: Target, certificates: Certificates) -> None:
    locked = tmp_path / "locked.key"
    run(require("openssl"), "pkey", "-in", certificates.client[1], "-out", locked, "-aes256", "-passout", "pass:word")
    with demanding(certificates, VERSIONS[1]) as (place, handshakes):
        for name, key, why in (
            ("other", stranger(certificates)[1], "key values mismatch"),
            ("none", certificates.ca, "are not a certificate and its key"),
            ("locked", locked, f"{tmp_path}/certs-locked/client.key has a passphrase (take it off: "),
        ):
            pair = (certificates.client[0], key)
            directory = certificate_directory(tmp_path / f"certs-{name}", certificates, pair)
            told = oci_error(target, place, directory, status=5)
            assert why in told
            assert f"{directory}/client.key" in told
            told = ostree_error(target, f"https://{place}", *ostree_options(certificates, pair))
            assert f"{key}'" in told
            assert "tls-client-key-path of the remote has to name the key of the certificate" in told
    assert not handshakes


def test_authorities_that_are_too_many(tmp_path: Path, target: Target, certificates: Certificates) -> None:
    """Those behind the limit would not be trusted, and nobody told."""
    directory = certificate_directory(tmp_path / "certs", certificates)
    (directory / "a.crt").write_bytes(certificates.ca.read_bytes() + b"\n" * (16 << 20))
    with demanding(certificates, VERSIONS[1]) as (place, handshakes):
        told = oci_error(target, place, directory, status=8)
    assert not handshakes
    assert f"{directory}/a.crt has more than 16777216 bytes" in told


def test_a_bundle_of_authorities_may_be_large(
    tmp_path: Path, target: Target, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = certificate_directory(tmp_path / "certs", certificates)
    bundle = (directory / "ca.crt").rename(tmp_path / "bundle")
    with bundle.open("ab") as file:
        file.write(b"\n" * (16 << 20))
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    with demanding(certificates, VERSIONS[1]) as (place, handshakes):
        assert "wants a client certificate" in oci_error(target, place, directory)
    assert handshakes


@pytest.mark.parametrize("has_more", [False, True])
@pytest.mark.parametrize(
    ("what", "status", "why"),
    [
        ("none", 3, "No such file or directory"),
        ("text", 5, "holds no certificate in PEM format"),
        ("broken", 5, "holds no certificate in PEM format"),
        ("directory", 5, "is not a regular file"),
        ("pipe", 5, "is not a regular file"),
    ],
)
def test_a_file_of_authorities_that_is_none(
    tmp_path: Path,
    target: Target,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    status: int,
    why: str,
    *,
    has_more: bool,
) -> None:
    """SSL_CERT_FILE is at fault alone, and beside the authorities of a directory for the registry."""
    (tmp_path / "text").write_text("nothing\n")
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / what))
    directory = certificate_directory(tmp_path / "certs", certificates)
    if not has_more:
        (directory / "ca.crt").unlink()
    with demanding(certificates, VERSIONS[1]) as (place, handshakes):
        told = oci_error(target, place, directory, status=status)
        assert not handshakes
        is_file = why != "is not a regular file"
        of_ostree = ostree_error(target, f"https://{place}", status=6 if is_file else 2)
        assert len(handshakes) == is_file  # libcurl looks at a file when it has said hello
    hint = "(SSL_CERT_FILE has to name a file of certificates in PEM, by its absolute path)"
    assert told.startswith(f"cfsctl: {tmp_path}/{what}")
    assert f"{why} {hint}" in told
    assert f"{tmp_path}/{what}" in of_ostree
    assert ("SSL_CERT_FILE" if is_file else f"{why} {hint}") in of_ostree


def test_an_alert_of_which_nothing_is_told(
    tmp_path: Path, target: Target, source: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libcurl with GnuTLS has it, whatever the alert says: it may pass, or else be about a certificate, soon."""
    lines = (
        "from composefs_ostree.remotes.failures import Failure",
        "of, told = Failure.of, 'GnuTLS recv error (-12): A TLS fatal alert has been received.'",
        "Failure.of = lambda handle, where, code, reason: of(handle, where, code, told if code else reason)",
    )
    start_by("\n".join(lines), "ostree", tmp_path / "ext", monkeypatch)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    with serve(source, tls=context) as server:
        server.fault("*", Fault(close=True), times=1)
        remote(target, server.url, *ostree_options(certificates))
        target.ostree("pull", "o", BRANCH)
        server.forgive()
        server.fault("*", Fault(close=True))
        monkeypatch.delenv("COMPOSEFS_OSTREE_RETRIES")
        assert f"{server.url}/config: the server {WANTED}" in ostree_error(
            target, server.url, *ostree_options(certificates)
        )
        assert server.count("/config") == 3
