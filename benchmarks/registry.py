"""CNCF distribution's registry on a free port of the loopback interface, without TLS and login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from listening import free_port, listening

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
    port = free_port()
    configuration = home / "config.yml"
    configuration.write_text(_CONFIGURATION.format(home=home, host=f"127.0.0.1:{port}"))
    with listening(["docker-registry", "serve", configuration], port, home / "log"):
        yield f"127.0.0.1:{port}"
