"""CNCF distribution's registry on loopback, run for a test: with or without a login, with or without TLS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.commands import run
from support.peers import require
from support.server import listening_program, reserved_port

ELSEWHERE = "2001:db8::1"
"""An address of nobody (RFC 3849), by which a proxy may call the registry."""
USER, PASSWORD = "somebody", "pass:word-of-somebody"


@dataclass
class Registry:
    """A running registry; ``certs`` is a directory for --cert-dir if it speaks TLS, ``log`` what it has written."""

    host: str
    certs: Path | None
    log: Path

    def image(self, name: str) -> str:
        """The reference of an image in it."""
        return f"docker://{self.host}/{name}"


@contextmanager
def registry(directory: Path, *, login: bool = False, tls: bool = False) -> Iterator[Registry]:
    """Run a registry that keeps its files in the directory while the block runs."""
    directory.mkdir(parents=True, exist_ok=True)
    with reserved_port() as port:
        certs = _configure(directory, f"127.0.0.1:{port}", login=login, tls=tls)
        command, log = [require("docker-registry"), "serve", str(directory / "config.yml")], directory / "log"
        with listening_program(*command, port=port, log=log):
            yield Registry(f"127.0.0.1:{port}", certs, log)


def _configure(directory: Path, host: str, *, login: bool, tls: bool) -> Path | None:
    """Write the configuration and what it names; return the directory of the certificate, if there is one."""
    settings = [f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory}/data\nhttp:\n  addr: {host}\n"]
    certs = None
    if tls:
        certs = directory / "certs"
        certs.mkdir()
        certificate(certs)
        settings.append(f"  tls:\n    certificate: {certs}/ca.crt\n    key: {directory}/server.key\n")
        os.rename(certs / "server.key", directory / "server.key")
    if login:
        lines = run(require("htpasswd"), "-nbB", USER, PASSWORD).stdout
        (directory / "htpasswd").write_text(lines)
        settings.append(f"auth:\n  htpasswd:\n    realm: here\n    path: {directory}/htpasswd\n")
    (directory / "config.yml").write_text("".join(settings))
    return certs


def certificate(directory: Path) -> None:
    """Make a certificate for 127.0.0.1 and ELSEWHERE that signs itself: ca.crt, and server.key."""
    run(
        *(require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-subj", "/CN=127.0.0.1", "-addext", f"subjectAltName=IP:127.0.0.1,IP:{ELSEWHERE}", "-days", "2"),
        *("-keyout", directory / "server.key", "-out", directory / "ca.crt"),
    )


def push(source: str, target: str, *options: str | Path) -> None:
    """Copy an image with skopeo."""
    run(require("skopeo"), "copy", "--quiet", *options, source, target)
