"""nginx on a free port of the loopback interface, with a configuration, a pid file and temporary files of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from listening import free_port, listening

_CONFIGURATION = """
daemon off;
{user}
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {faults}
    server {{ listen 127.0.0.1:{port}; root {root}; {fail} }}
}}
"""
_FAULTS = "split_clients $request_id $outcome {{ {half:.2f}% refuse; {half:.2f}% hang_up; * serve; }}"
_FAIL = "if ($outcome = refuse) { return 503; } if ($outcome = hang_up) { return 444; }"


@contextmanager
def nginx(root: Path, home: Path, failing: float = 0.0) -> Iterator[str]:
    """Serve a directory while the block runs; ``home`` is for nginx's own files.  Yields the URL.

    ``failing`` is how many of a hundred requests fail, half of them by status 503, half by a closed connection.
    """
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    # Started by root, its workers would be another user, who may not read the directory.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration = home / "nginx.conf"
    faults, fail = (_FAULTS.format(half=failing / 2), _FAIL) if failing else ("", "")
    configuration.write_text(
        _CONFIGURATION.format(home=home, root=root.resolve(), port=port, user=user, faults=faults, fail=fail)
    )
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") or "nginx"
    log = home / "error.log"
    with listening([program, "-p", home, "-e", log, "-c", configuration], port, log):
        yield f"http://127.0.0.1:{port}"
