"""What becomes of errors: any exception is turned into one of composefs.errors, which is one line on standard error.

The line is ``cfsctl: MESSAGE (HINT)``; -v adds the causes, -vv the traceback.  The exit status is the error's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from composefs.cli import ctrl_c
from composefs.cli.output import STDERR, say
from composefs.cli.settings import may_color
from composefs.cli.text import printable, shortened
from composefs.errors import (
    CancelledError,
    ComposefsError,
    NotFoundError,
    UnsupportedError,
    UsageError,
)
from composefs.systemerrors import from_os_error, out_of_memory

__all__ = ["PROGRAM", "failure_of", "report"]

PROGRAM = "cfsctl"
_LEAST_LIKENESS = 0.62  # of 1: disable-fsync and disable-verify-bindings have less, retries and network-retries more


def failure_of(error: BaseException) -> ComposefsError:
    """Return the error of ours that stands for anything raised; what was raised is its ``__cause__``."""
    match error:
        case ComposefsError():
            return error
        case click.UsageError():
            failure: ComposefsError = _wrong_usage(error)
        case RuntimeError(__cause__=KeyboardInterrupt() as stop):
            # A signal's handler raised it in the making of a class, and Python before 3.12 makes an error of that.
            return failure_of(stop)
        case ctrl_c.Terminated(number=number):
            failure = CancelledError.by_signal(number, "terminated")
        case KeyboardInterrupt():
            failure = CancelledError("interrupted")
        case FileNotFoundError(filename=None) if _is_nowhere():
            failure = NotFoundError(
                "the working directory is not there any more", hint="change to another: cd DIRECTORY"
            )
        case OSError():
            is_path = isinstance(error.filename, str | bytes)  # and no descriptor
            failure = from_os_error(error, os.fsdecode(error.filename) if is_path else "a system call failed")
        case ImportError() if out_of_memory(error) is None and not str(error).startswith("cannot import name"):
            failure = UnsupportedError(f"a library cannot be loaded: {error}", hint="install it for cfsctl's Python")
        case _:
            failure = out_of_memory(error) or ComposefsError(
                f"internal error: {type(error).__name__}: {error}", hint="please report it, with what -vv shows"
            )
    failure.__cause__ = error
    return failure


def _wrong_usage(error: click.UsageError) -> UsageError:
    """Say what click finds wrong with a command line in our words, and what may have been meant."""
    context = error.ctx
    hint = f"see '{context.command_path if context else PROGRAM} --help'"
    if isinstance(error, click.NoSuchOption):
        option = error.option_name
        if context and context.parent and any(option in each.opts for each in context.find_root().command.params):
            return UsageError(
                f"{option} comes before the command", hint=f"it is an option of all commands: cfsctl {option} … COMMAND"
            )
        if context and isinstance(context.command, click.Group):
            hint = f"a command's options come after it; {hint}"
        guesses = " or ".join(map(repr, _alike(option, error.possibilities or ())))
        # Each click has other words for it.
        return UsageError(f"no such option {option!r}{guesses and f'. Did you mean {guesses}?'}", hint=hint)
    message = " ".join(error.format_message().split()).rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def _alike(option: str, guesses: Iterable[str]) -> list[str]:
    """Return those of click's guesses that resemble the option in more than the hyphens: --fsync is not --json."""
    from difflib import SequenceMatcher

    word = option.lstrip("-")
    return [each for each in guesses if SequenceMatcher(None, each.lstrip("-"), word).ratio() > _LEAST_LIKENESS]


def _is_nowhere() -> bool:
    """Tell whether the working directory was removed, so that no relative path leads anywhere."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def report(failure: ComposefsError, context: click.Context | None) -> None:
    """Write an error to standard error; no text in it can break the line, or reach the terminal raw.

    ``context`` is that of the program, from which verbosity and colour are taken; None before there is one.
    """
    verbosity = context.params["verbose"] if context else 0
    name = click.style(f"{PROGRAM}:", fg="red", bold=True)
    hint = click.style(f" ({shortened(failure.hint)})", dim=True) if failure.hint else ""
    lines = [f"{name} {shortened(failure.message)}{hint}"]
    if verbosity >= 1:
        lines += [f"  caused by: {shortened(cause)}" for cause in failure.causes]
    if verbosity >= 2:
        import traceback

        lines.append(printable("".join(traceback.format_exception(failure)).rstrip()))
    colored = context.color if context else None
    if colored is None:
        colored = may_color() and os.isatty(STDERR)
    text = "\n".join(lines)
    say(text if colored else click.unstyle(text))
