"""A second signal, when the first has ended the work already."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support.commands import TIMEOUT

_CODE = """
import os, sys
from composefs.cli import main
def ask_again(*_):
    os.kill(os.getpid(), {number})
main.{place} = ask_again
sys.argv = ["cfsctl", {argument!r}]
main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda each: each.name)
@pytest.mark.parametrize(("place", "argument"), [("_report", "no-such-command"), ("settle", "--version")])
def test_it_ends_the_process_without_a_traceback(number: signal.Signals, place: str, argument: str) -> None:
    code = _CODE.format(number=int(number), place=place, argument=argument)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.stderr == ""
    assert done.returncode == -number
