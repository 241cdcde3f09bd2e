"""cfsctl on a terminal, as a person runs it."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.commands import CFSCTL, TIMEOUT


def on_terminal(
    *argv: str | Path,
    program: str | Path = CFSCTL,
    look: Callable[[bytes], None] = lambda _: None,
    **environment: str,
) -> tuple[int, bytes]:
    """Run a program with all its descriptors on a terminal; return its status and what the terminal got.

    ``look`` is shown what is there, whenever there is more.
    """
    controller, terminal = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "", "TERM": "xterm", **environment}
    process = subprocess.Popen([program, *argv], stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last one has closed the terminal
        while piece := os.read(controller, 65536):
            shown += piece
            look(shown)
    os.close(controller)
    return process.wait(timeout=TIMEOUT), shown
