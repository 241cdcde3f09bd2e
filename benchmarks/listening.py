"""Running a program that listens on a free port of the loopback interface."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["free_port", "listening"]


def free_port() -> int:
    """Return the number of a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def listening(argv: Sequence[str | Path], port: int, log: Path) -> Iterator[None]:
    """Run a program while the block runs, which begins when it listens; what it writes is appended to ``log``."""
    with log.open("ab") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                if process.poll() is not None:
                    raise RuntimeError(f"{argv[0]} ended:\n{log.read_text()}") from None
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()
