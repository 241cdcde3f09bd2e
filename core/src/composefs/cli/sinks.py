"""The command line's sinks: bars on a terminal, plain lines in a log, JSON Lines on request, trace, output.

All write to standard error, but for `Output`.  Where progress is not asked for, it is shown as bars when standard error
is a terminal, as lines when it is not and -v was given, and else not at all; rich is imported by the first bar only,
and the first bar appears when something has lasted for half a second.  Who watches bars is told what -v tells, too: how
much there was to fetch.
"""

from __future__ import annotations

import codecs
import json
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from composefs.cli.output import STDERR, STDOUT, say, write
from composefs.cli.text import one_line, printable, size_text
from composefs.observe import Level, Progress, sink

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Bars", "JsonLines", "Lines", "Messages", "Output", "Trace", "sinks_for"]

BARS_AFTER = 0.5
"""Seconds that something must last before a bar is shown."""
LINE_EVERY = 5.0
"""Seconds between two lines about one thing in a log."""
MOST_BARS = 8
"""Bars on the screen at a time."""
LONGEST_LABEL = 40
"""Characters of a bar's label."""
MOST_THINGS = 1000
"""Ids that `Lines` remembers; an extension may invent any number of them."""
_IMPORTANCE: dict[Level, int] = {"error": -1, "warning": 0, "info": 1, "debug": 2}
"""The verbosity from which on a level is shown."""


def sinks_for(style: str, verbosity: int, *, trace: bool, json: bool) -> list[object]:
    """Return the sinks for what --progress, -v and -q, and --trace say; with ``json``, the output is not shown."""
    if style == "auto":
        if verbosity < 0:
            style = "none"
        elif os.isatty(STDERR) and os.environ.get("TERM") != "dumb":
            style = "bar"
        else:
            style = "plain" if verbosity > 0 else "none"
    if style == "bar" and trace:
        style = "none"  # too many lines for a bar to stand below
    if style == "bar" and verbosity == 0:
        verbosity = 1
    sinks: list[object] = [JsonLines(verbosity) if style == "json" else Messages(verbosity)]
    if style == "plain":
        sinks.append(Lines())
    if trace:
        sinks.append(Trace())
    if not json:
        sinks.append(Output())
    if style == "bar":  # last registered, first called: it leaves the screen before anything else is written to it
        sinks.append(Bars(verbosity))
    return sinks


def _is_shown(level: Level, verbosity: int) -> bool:
    return _IMPORTANCE[level] <= verbosity


def _counts(event: Progress) -> str:
    """Return ``3/7`` or ``1.2 MiB/3.0 GiB``, or as much of it as is known: nothing for what counts nothing."""
    if not event.done and not event.total:
        return ""
    known = [value for value in (event.done, event.total) if value is not None]
    return "/".join(size_text(value) if event.unit == "bytes" else str(value) for value in known)


class Messages:
    """Log lines as text, by level and verbosity."""

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity

    @sink
    def log(self, level: Level, message: str) -> None:
        """Show a line that is important enough."""
        if _is_shown(level, self._verbosity):
            prefix = "" if level == "info" else f"{one_line(level)}: "
            say(f"{prefix}{one_line(message)}")


class Lines:
    """Progress as lines for a log: the start, the end, and every five seconds between them."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    @sink
    def progress(self, event: Progress) -> None:
        """Say it, unless something was said about the same thing just now."""
        now = time.monotonic()
        if event.kind == "progress" and now - self._said.get(event.id, now - LINE_EVERY) < LINE_EVERY:
            return
        if len(self._said) >= MOST_THINGS:
            self._said.clear()
        self._said[event.id] = now
        kind = "" if event.kind == "progress" else event.kind
        say(" ".join(filter(None, [f"{one_line(event.label or event.id)}:", kind, _counts(event)])))


class JsonLines:
    """Progress and log lines as one JSON object a line, for programs."""

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity

    @sink
    def progress(self, event: Progress) -> None:
        """Write ``{"event": "progress", "id": …, "kind": …}`` with the members that have a value."""
        known = {name: value for name, value in event._asdict().items() if value is not None}
        say(json.dumps({"event": "progress", **known}))

    @sink
    def log(self, level: Level, message: str) -> None:
        """Write ``{"event": "log", "level": …, "message": …}``."""
        if _is_shown(level, self._verbosity):
            say(json.dumps({"event": "log", "level": level, "message": message}))


class Bars:
    """Progress as bars at the bottom of a terminal, gone when the work is done.

    A timer shows them, not an event: one large file, or a server that says nothing, is when people want to see life.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._rich: RichProgress | None = None
        self._current: dict[str, Progress] = {}
        self._tasks: dict[str, TaskID] = {}

    @sink
    def progress(self, event: Progress) -> None:
        """Move the bar of the thing, if there is room for one."""
        with self._lock:
            if event.kind in ("done", "skipped"):
                self._current.pop(event.id, None)
                if self._rich and event.id in self._tasks:
                    self._rich.remove_task(self._tasks.pop(event.id))
                return
            if event.id not in self._current and len(self._current) >= MOST_BARS:
                return
            self._current[event.id] = event
            if self._rich:
                self._draw(self._rich, event)
            elif self._timer is None:
                self._timer = threading.Timer(BARS_AFTER, self._show)
                self._timer.daemon = True
                with suppress(RuntimeError):  # where no thread may be started, the work goes on without a bar
                    self._timer.start()

    def _show(self) -> None:
        with suppress(MemoryError, ImportError, RuntimeError):  # as above, where there is no memory for rich
            self._appear()

    def _appear(self) -> None:
        import signal

        # The kernel gives a signal to the thread that starts another just then, as rich does here; Python acts on it in
        # the main thread alone, which would go on waiting in a system call.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        with self._lock:
            if self._timer is not threading.current_thread():
                return  # hidden while rich was imported
            self._rich = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[count]}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            with suppress(RuntimeError):  # as above: rich starts one of its own, and shows bars without it, too
                self._rich.start()
            for event in self._current.values():
                self._draw(self._rich, event)

    def _draw(self, bars: RichProgress, event: Progress) -> None:
        count = _counts(event)
        label = one_line(event.label or event.id)[:LONGEST_LABEL]
        if event.id not in self._tasks:
            self._tasks[event.id] = bars.add_task(label, total=event.total, count=count)
        bars.update(self._tasks[event.id], description=label, total=event.total, completed=event.done or 0, count=count)

    def _hide(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._rich is not None:
                self._rich.stop()
                self._rich = None
                self._tasks.clear()

    @sink
    def log(self, level: Level) -> None:
        """Make room for a line, if it is shown; a later event shows the bars again."""
        if _is_shown(level, self._verbosity):
            self._hide()

    @sink
    def output(self) -> None:
        """Make room for output, which is likely to go to the same terminal."""
        self._hide()

    @sink
    def close(self) -> None:
        """Leave nothing on the screen."""
        self._hide()


class Trace:
    """A protocol conversation, one message a line."""

    @sink
    def trace(self, direction: str, line: str) -> None:
        """Show a message."""
        say(f"{direction} {printable(line)}")


class Output:
    """The command's output on standard output; harmless when that is a terminal, byte for byte when not."""

    def __init__(self) -> None:
        self._terminal = os.isatty(STDOUT)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @sink
    def output(self, data: bytes) -> None:
        """Write a piece."""
        write(printable(self._decoder.decode(data)).encode() if self._terminal else data)
