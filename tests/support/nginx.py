"""nginx as a server of repositories: over TLS, with clients' certificates, passwords, tokens; and a proxy.

    with nginx(tmp_path / "home", root=repo, settings="auth_basic x; auth_basic_user_file …;") as server:
        cfsctl(…, server.url)
        assert "GET /config" in server.log()

Each has a free port of the loopback interface, and ends with the block, by its own process id.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.commands import run
from support.peers import require
from support.server import listening_program, reserved_port

_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format all '$remote_user|$ssl_client_s_dn|$server_protocol|$request|$status|$http_x_key|$http_authorization';
    access_log {home}/access.log all;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{port}{tls};
        {settings}
        location / {{ root {root}; }}
    }}
}}
"""


class Nginx(NamedTuple):
    """A running server.  Its URL has the name ``localhost``, which its certificate has too."""

    url: str
    home: Path

    def log(self) -> list[list[str]]:
        """Return user, client certificate, protocol, request, status, X-Key and Authorization of each request.

        A line is written after its answer, but by the only worker: when the line of one more request is there, so are
        all before it.  Where TLS is spoken, that request is a bad one.
        """
        mark = f"/mark-{time.monotonic_ns()}"
        with socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2]))) as client:
            client.sendall(f"GET {mark} HTTP/1.0\r\n\r\n".encode())
            while client.recv(65536):
                pass
        while f"GET {mark} " not in (text := (self.home / "access.log").read_text()):
            time.sleep(0.01)
        return [line.split("|") for line in text.splitlines() if "|GET /mark-" not in line]


class Certificates(NamedTuple):
    """An authority, and a server's and a client's certificate that it signed; ``other`` is an authority of no worth."""

    ca: Path
    server: tuple[Path, Path]
    client: tuple[Path, Path]
    other: Path


def make_certificates(path: Path) -> Certificates:
    """Make them with the openssl command."""
    path.mkdir()
    made = {}
    for name in ("ca", "other", "server", "client"):
        certificate, key = path / f"{name}.pem", path / f"{name}.key"
        issued = ["-CA", path / "ca.pem", "-CAkey", path / "ca.key"] if name in ("server", "client") else []
        run(
            *(
                require("openssl"),
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-noenc",
            ),
            *("-days", "2", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate, *issued),
            *(["-addext", "subjectAltName=DNS:localhost"] if name == "server" else []),
        )
        made[name] = (certificate, key)
    return Certificates(made["ca"][0], made["server"], made["client"], made["other"][0])


@contextmanager
def nginx(
    home: Path, root: Path, settings: str = "", certificates: Certificates | None = None, *, clients: bool = False
) -> Iterator[Nginx]:
    """Serve a directory while the block runs; ``clients`` must have a certificate."""
    home.mkdir()
    with reserved_port() as port:
        _configure(home, root, port, settings, certificates, clients=clients)
        log = home / "error.log"
        command = [require("nginx"), "-p", str(home), "-e", str(log), "-c", str(home / "nginx.conf")]
        with listening_program(*command, port=port, log=log):
            yield Nginx(f"{'https' if certificates else 'http'}://localhost:{port}", home)


def _configure(
    home: Path, root: Path, port: int, settings: str, certificates: Certificates | None, *, clients: bool
) -> None:
    tls = ""
    if certificates is not None:
        tls = " ssl http2"
        settings += f"ssl_certificate {certificates.server[0]}; ssl_certificate_key {certificates.server[1]};"
        if clients:
            settings += f"ssl_client_certificate {certificates.ca}; ssl_verify_client on;"
    (home / "nginx.conf").write_text(
        _CONFIGURATION.format(
            home=home,
            root=root.resolve(),
            port=port,
            tls=tls,
            settings=settings,
            # Started by root, its workers would be another user, who may not read the directory.
            user="user root;" if os.geteuid() == 0 else "",
        )
    )
