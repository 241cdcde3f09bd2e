"""What the tools beside cfsctl share: an argparse parser, and errors as one line with an exit status.

They start from scripts and build systems, so they do without click, which takes five times as long to load.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from composefs.cli import ctrl_c
from composefs.errors import ComposefsError, UsageError
from composefs.systemerrors import out_of_memory

if TYPE_CHECKING:
    from composefs.cli.progress import Reporting

__all__ = ["Parser", "at_work", "fail", "given_path", "run"]

FAILED = 1
_INTERRUPTED = 130
_BROKEN_PIPE = 141


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError, so that wrong usage is told as every other error is."""

    def error(self, message: str) -> NoReturn:
        """Raise it."""
        raise UsageError(message)

    def print_help(self, file: object = None) -> None:  # noqa: ARG002 - argparse's signature
        """Print it to standard output; argparse would ignore that it cannot be written."""
        from composefs.cli.output import write

        write(self.format_help().encode())


def given_path(text: str) -> str:
    """Check a path, as the type of an argument: an empty one comes from a script in which a variable is not set."""
    if not text:
        raise argparse.ArgumentTypeError("an empty path")
    return text


@contextmanager
def at_work(label: str) -> Iterator[Reporting | None]:
    """Yield what shows progress, behind the label, once it is called; None where standard error is no terminal.

    Whoever writes to standard output meanwhile calls its ``make_room`` before.
    """
    if not os.isatty(2):
        yield None
        return
    from composefs.cli.progress import Reporting
    from composefs.cli.sinks import sinks_for
    from composefs.observe import Observers

    sinks = sinks_for("auto", 0, trace=False, json=True)
    with Observers(*sinks) as observers, Reporting(observers, label, label) as report:
        yield report


def run(program: str, work: Callable[[], object], *, wrong_usage: int = FAILED) -> int:
    """Do the work and return the exit status: 0, ``wrong_usage``, 1 for other errors, 128 + the number of a signal.

    When nobody reads standard output any more it is 141, that of a program ended by SIGPIPE.
    """
    try:
        ctrl_c.raise_interrupts()
        try:
            work()
        finally:
            ctrl_c.restore_defaults()
    except UsageError as error:
        return fail(program, f"{error.message} (see {program} --help)", wrong_usage)
    except ComposefsError as error:
        return fail(program, error.told)
    except BrokenPipeError:  # nothing is buffered any more
        return _BROKEN_PIPE
    except (MemoryError, ImportError) as error:
        if (failure := out_of_memory(error)) is None:
            raise
        return fail(program, failure.told)
    except (KeyboardInterrupt, RuntimeError) as error:
        # In the making of a class, Python before 3.12 makes a RuntimeError of it.
        stop = error if isinstance(error, KeyboardInterrupt) else error.__cause__
        if isinstance(stop, ctrl_c.Terminated):
            return fail(program, "terminated", 128 + stop.number)
        if not isinstance(stop, KeyboardInterrupt):
            raise
        return fail(program, "interrupted", _INTERRUPTED)
    return 0


def fail(program: str, message: str, status: int = FAILED) -> int:
    """Say in one line on standard error what went wrong, and return the status."""
    from composefs.cli.output import settle
    from composefs.cli.text import one_line

    settle()
    if sys.stderr is not None:  # Closed; and then print() would take standard output.
        print(f"{program}: {one_line(message)}", file=sys.stderr)
    return status
