"""Signals at odd moments: when the work has ended already, and in the middle of the making of a class."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support.commands import TIMEOUT

_CODE = """
import os, signal, sys
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)  # whoever has them ignored here
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


_IN_A_CLASS = """
import os, signal, sys
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_DFL)  # whoever has them ignored here
from composefs.cli import main
class Field:
    def __set_name__(self, owner, name):
        os.kill(os.getpid(), {number})
main.root.invoke = lambda _: type("Names", (), {{"field": Field()}})
sys.argv = ["cfsctl", "images"]
from composefs.cli.start import main
main()
"""


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGHUP, 129, "terminated")],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_while_a_class_is_made_it_is_no_internal_error(number: int, status: int, told: str) -> None:
    """Python before 3.12 makes a RuntimeError of whatever a field of a class raises when it is told its name."""
    code = _IN_A_CLASS.format(number=number)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.stderr == f"cfsctl: {told}\n"
    assert done.returncode == status
