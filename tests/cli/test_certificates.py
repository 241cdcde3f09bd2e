"""A server whose certificate is not taken: what is told is what is wrong with it, and the remedy is no other."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pycurl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.commands import cfsctl, run
from support.nginx import make_certificates
from support.ostree_pull import Target, extensions, start_by
from support.peers import require
from support.server import listening

__all__ = ["extensions"]

pytestmark = pytest.mark.usefixtures("extensions")

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

BAD = {
    "unknown": ("localhost", NOW + DAY, False, "self-signed certificate"),
    "name": ("example.com", NOW + DAY, True, "'localhost'"),
    "expired": ("localhost", NOW - DAY, True, "certificate has expired"),
}
"""The name in the certificate, its end, whether its authority is given, and what is told."""

HAS_GNUTLS = "GnuTLS" in pycurl.version
"""As Debian's libcurl: it has words of its own, and a file without certificates is for it one with none that fit."""


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without proxies and remotes, where extensions may read what the tests make."""
    for name in ("https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(tmp_path / "none"))
    monkeypatch.setenv("COMPOSEFS_EXT_READ", str(tmp_path_factory.getbasetemp()))


@contextmanager
def tls_server(directory: Path, name: str, end: datetime) -> Iterator[str]:
    """A server on loopback with a certificate that it signed itself, ``directory/ca.crt``; yield localhost:PORT."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir()
    (directory / "ca.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "server.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "ca.crt", directory / "server.key")
    (directory / "server.key").unlink()  # or it would be a client's, for a registry
    with listening(BaseHTTPRequestHandler, context) as place:
        yield place.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("fault", BAD)
def test_the_certificate_of_an_ostree_remote(tmp_path: Path, target: Target, fault: str) -> None:
    name, end, is_known, told = BAD[fault]
    if HAS_GNUTLS and not is_known:
        told = "certificate signer not trusted"
    with tls_server(tmp_path / "certs", name, end) as place:
        known = [f"--set=tls-ca-path={tmp_path}/certs/ca.crt"] if is_known else []
        target.ostree("remote", "add", "--no-gpg-verify", "o", f"https://{place}/repo", *known)
        refused = target.ostree("pull", "o", "main", status=6).stderr
    message, _, hint = refused.partition(" (the URL has to have")
    assert message.startswith(f"cfsctl: https://{place}/repo/config: ")
    assert told in message
    assert all(words in hint for words in ("a name that is in the server's certificate", "time", "tls-ca-path"))
    assert "network" not in refused


@pytest.mark.parametrize("fault", BAD)
def test_the_certificate_of_a_registry(tmp_path: Path, target: Target, fault: str) -> None:
    name, end, is_known, told = BAD[fault]
    with tls_server(tmp_path / "certs", name, end) as place:
        known = [f"--cert-dir={tmp_path}/certs"] if is_known else []
        command = ("oci", "pull", f"docker://{place}/app:1", *known)
        refused = cfsctl("--repo", target.path, *command, status=6).stderr
    message, _, hint = refused.partition(" (the registry's name has to be in it")
    assert message.startswith(f"cfsctl: https://{place}/v2/app/manifests/1: the certificate is not trusted: ")
    assert told in message
    assert all(words in hint for words in ("time", "--cert-dir", "/etc/containers/certs.d"))
    assert "network" not in refused


def test_authorities_of_a_remote_are_trusted_alone(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the system are not: Debian's libcurl has a directory of them, and looks into it beside any file."""
    lines = (
        "from composefs_ostree.remotes.curl import pycurl",
        "make = pycurl.Curl",
        "def make_with_authorities():",
        "    handle = make()",
        f"    handle.setopt(pycurl.CAPATH, {str(tmp_path / 'system')!r})",
        "    return handle",
        "pycurl.Curl = make_with_authorities",
    )
    other = make_certificates(tmp_path / "made").other
    with tls_server(tmp_path / "certs", "localhost", NOW + DAY) as place:
        known = tmp_path / "certs" / "ca.crt"
        digits = run(require("openssl"), "x509", "-noout", "-hash", "-in", known).stdout.strip()
        (tmp_path / "system").mkdir()
        shutil.copy(known, tmp_path / "system" / f"{digits}.0")
        url = f"https://{place}/repo"
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "system"))
        assert f"{url}/config: HTTP status 501" in target.ostree("pull", url, "main", status=6).stderr
        monkeypatch.delenv("SSL_CERT_DIR")
        start_by("\n".join(lines), "ostree", tmp_path / "ext", monkeypatch)
        assert f"{url}/config: HTTP status 501" in target.ostree("pull", url, "main", status=6).stderr
        target.ostree("remote", "add", "--no-gpg-verify", "o", url, f"--set=tls-ca-path={other}")
        refused = target.ostree("pull", "o", "main", status=6).stderr
    assert "(the URL has to have a name that is in the server's certificate" in refused


def test_a_server_that_speaks_no_tls(target: Target) -> None:
    with listening(BaseHTTPRequestHandler) as place:
        refused = target.ostree("pull", f"https://{place}/repo", "main", status=6).stderr
    assert f"https://{place}/repo/config: " in refused
    assert "check scheme and port of the URL" in refused


def test_authorities_that_are_no_certificates(tmp_path: Path, target: Target) -> None:
    (tmp_path / "ca.crt").write_text("none\n")
    with tls_server(tmp_path / "certs", "localhost", NOW + DAY) as place:
        settings = f"--set=tls-ca-path={tmp_path}/ca.crt"
        target.ostree("remote", "add", "--no-gpg-verify", "o", f"https://{place}/repo", settings)
        refused = target.ostree("pull", "o", "main", status=6).stderr
    assert f"{tmp_path}/ca.crt" in refused
    remedy = "is named by tls-ca-path of the remote" if HAS_GNUTLS else "has to name certificates in PEM"
    assert remedy in refused
