"""CNCF distribution's registry on a free port of the loopback interface, without TLS and login."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CONFIGURATION = """
version: 0.1
log: {{accesslog: {{disabled: true}}, level: error}}
storage: {{filesystem: {{rootdirectory: {home}/data}}}}
http: {{addr: "{host}"}}
"""


@contextmanager
def registry(home: Path) -> Iterator[str]:
    """Run a registry that keeps its files in ``home`` while the block runs.  Yields HOST:PORT."""
    home.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = home / "config.yml"
    configuration.write_text(_CONFIGURATION.format(home=home, host=f"127.0.0.1:{port}"))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(configuration)], stdout=log, stderr=log)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise RuntimeError(f"docker-registry ended:\n{(home / 'log').read_text()}") from None
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
