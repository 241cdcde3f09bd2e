"""What a running command tells whoever watches: progress, log lines, the trace of a protocol conversation, output.

The work (scanning a tree, running an extension) reports to an `Observers` object and does not know who listens.
Listeners, *sinks*, are objects with methods marked `sink`, any subset of those in `Hooks`; pluggy calls them.  The
command line's own sinks are in composefs.cli.sinks.  All text may come from an extension and thus from a hostile
input: a sink that writes to a terminal makes it harmless first.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import pluggy

from composefs.linux.closing import Closing

__all__ = ["Kind", "Level", "Observers", "Progress", "Unit", "sink"]

_PROJECT = "composefs"
_spec = pluggy.HookspecMarker(_PROJECT)
sink = pluggy.HookimplMarker(_PROJECT)
"""Marks the methods of a sink."""

Kind = Literal["started", "progress", "skipped", "done"]
Unit = Literal["bytes", "items"]
Level = Literal["debug", "info", "warning", "error"]


class Progress(NamedTuple):
    """One step of something that takes time.

    ``id`` tells concurrent things apart and stays the same from ``started`` to ``done``; either may be missing, as
    ``skipped`` (nothing had to be done) may come alone.  ``done`` and ``total`` count ``unit``; a ``total`` of None is
    not known (yet).  ``label`` is for people.
    """

    id: str
    kind: Kind
    done: int | None = None
    total: int | None = None
    unit: Unit = "items"
    label: str | None = None


class Hooks:
    """What a sink may implement."""

    @_spec
    def progress(self, event: Progress) -> None:
        """Something started, went on or ended."""

    @_spec
    def log(self, level: Level, message: str) -> None:
        """A line for people was said."""

    @_spec
    def trace(self, direction: str, line: str) -> None:
        """A protocol message passed: ``direction`` is ``->`` (core to extension) or ``<-``; secrets are redacted."""

    @_spec
    def output(self, data: bytes) -> None:
        """A piece of the command's standard output; pieces may be cut anywhere."""

    @_spec
    def close(self) -> None:
        """Nothing more will come; leave the terminal as it was found."""


class Observers(Closing):
    """The sinks, of which the last is called first; a context manager that closes them; without any, all is lost."""

    def __init__(self, *sinks: object) -> None:
        self._plugins = pluggy.PluginManager(_PROJECT)
        self._plugins.add_hookspecs(Hooks)
        self._hook = self._plugins.hook
        for each in sinks:
            self._plugins.register(each)

    @property
    def tracing(self) -> bool:
        """Whether anybody reads the trace; the caller formats messages only then."""
        return bool(self._hook.trace.get_hookimpls())

    def progress(self, event: Progress) -> None:
        """Report progress."""
        self._hook.progress(event=event)

    def log(self, level: Level, message: str) -> None:
        """Say a line to people."""
        self._hook.log(level=level, message=message)

    def trace(self, direction: str, line: str) -> None:
        """Show a protocol message."""
        self._hook.trace(direction=direction, line=line)

    def output(self, data: bytes) -> None:
        """Hand out a piece of standard output."""
        self._hook.output(data=data)

    def close(self) -> None:
        """Tell the sinks that nothing more comes."""
        self._hook.close()
