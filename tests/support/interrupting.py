"""Commands of extensions that are interrupted: by themselves they end, not because the core makes them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

from support.commands import CFSCTL, TIMEOUT
from support.peers import require


class Interrupted:
    """A run of cfsctl; ``log`` shows the signals SIGTERM that its processes get, and calls of one name."""

    def __init__(self, log: Path, *arguments: str | Path, trace: str = "none", **options: Any) -> None:
        self.log = log
        log.touch()
        # The process that is started is the command; strace is beside it.
        strace = [require("strace"), "-D", "-f", "-qqq", "-o", log, "-e", f"trace={trace}", "-e", "signal=SIGTERM"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([*strace, CFSCTL, *arguments], **pipes, **options)

    def line(self) -> str:
        """Return the next line on standard error."""
        assert self.process.stderr is not None
        line: str = self.process.stderr.readline()
        return line

    def end(self, number: signal.Signals = signal.SIGINT) -> str:
        """Interrupt it, check how it ends, and return what it still says."""
        self.process.send_signal(number)
        out, told = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode == 128 + number
        assert out == ""
        # An extension that does not end in the time that it has is sent SIGTERM.
        lines = self.log.read_text().splitlines()
        assert [line for line in lines if "--- SIGTERM" in line and not line.startswith(f"{self.process.pid} ")] == []
        return told
