"""progress, log, output: what the user sees.

These need no answer, so nothing slows a flood of them down but the limits: progress is coalesced by id, and log lines
are dropped after the limit with one line that says so.
"""

from __future__ import annotations

import time
from typing import get_args

from composefs.errors import CancelledError, ComposefsError
from composefs.ext.context import Context
from composefs.observe import Kind, Level, Progress, Unit
from composefs.protocol.errors import printable
from composefs.protocol.limits import MAX_INTEGER
from composefs.protocol.params import choice, integer, one_of, staged_name, string
from composefs.protocol.wire import Message

__all__ = ["log", "output", "progress"]

_KINDS: tuple[Kind, ...] = get_args(Kind)
_LEVELS: tuple[Level, ...] = get_args(Level)
_UNITS: tuple[Unit, ...] = get_args(Unit)

_MAX_LABEL = 256
_MAX_OUTPUT_FILE = 1 << 40


def progress(context: Context, params: Message) -> Message:
    """Pass a progress event on, unless there are too many."""
    name = string(params, "id")[:_MAX_LABEL]
    kind = choice(params, "kind", _KINDS)
    unit = choice(params, "unit", _UNITS, "items")
    done = _count(params, "done")
    total = _count(params, "total")
    label = string(params, "label") if params.get("label") is not None else None
    if context.progress.passes(name, kind, time.monotonic()):
        shown = printable(label, _MAX_LABEL) if label is not None else None
        context.observer.progress(Progress(printable(name), kind, done, total, unit, shown))
    return {}


def log(context: Context, params: Message) -> Message:
    """Say a line to the user."""
    level = choice(params, "level", _LEVELS)
    message = string(params, "message")
    if context.log_lines < context.limits.log_lines:
        context.observer.log(level, printable(message))
    elif context.log_lines == context.limits.log_lines:
        context.observer.log("warning", f"{context.manifest.name} logs too much; further messages are dropped")
    context.log_lines += 1
    return {}


def output(context: Context, params: Message) -> Message:
    """Print a text, or a staged file which is removed then; with --json both are dropped."""
    key, value = one_of(params, "text", "file")
    if key == "text":
        text = string(params, "text")
        if not context.options.json:
            _write(context, text.encode("utf-8", "replace"))
        return {}
    name = staged_name(value, "file")
    if not context.options.json:
        for piece in context.staged.pieces(name, _MAX_OUTPUT_FILE):
            if context.interrupted():
                raise CancelledError("interrupted while output was printed")
            _write(context, piece)
    context.staged.remove(name)
    return {}


def _write(context: Context, data: bytes) -> None:
    """Write output; as most extensions do not wait for an answer, keep in mind that it failed."""
    try:
        context.observer.output(data)
    except ComposefsError as error:
        context.unwritten = error
        raise


def _count(params: Message, key: str) -> int | None:
    return None if params.get(key) is None else integer(params, key, 0, MAX_INTEGER)
