"""Starting an extension: its directories, what it may reach, its process; and the end of all that.

Only what this takes is imported before the extension runs.  Whatever else a run needs is imported afterwards, with
composefs.ext.session: while the extension loads on one processor, the core loads on another.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from composefs.errors import PermissionDeniedError, UsageError
from composefs.ext.account import Account, account_of
from composefs.ext.cache import cache_directory
from composefs.ext.commandline import CommandLine
from composefs.ext.environment import clean_environment
from composefs.ext.errortext import ErrorText
from composefs.ext.interrupts import Interrupts
from composefs.ext.manifest import Command
from composefs.ext.options import RunOptions, Stdio
from composefs.ext.process import USER_STDIN, USER_STDOUT, Ended, Process, Program, spawn
from composefs.ext.reach import reach_of
from composefs.protocol.limits import Limits
from composefs.repository.staging import Staging
from composefs.systemerrors import Doing, without_proc
from composefs.tuples import NamedTuple

if TYPE_CHECKING:
    from composefs.repository import Repository

__all__ = ["Launched", "launch"]


class Launched(NamedTuple):
    """A running extension and what belongs to its run.

    ``places`` has the device and inode of what was at the paths that the user typed before the extension started;
    ``cache`` is the path of the extension's own cache or None.
    """

    line: CommandLine
    repository: Repository | None
    options: RunOptions
    limits: Limits
    places: dict[str, tuple[int, int]]
    staging: Staging
    cache: str | None
    account: Account | None
    interrupts: Interrupts
    process: Process
    error_text: ErrorText

    def wait(self, seconds: float, *, read: bool, write: bool) -> set[int]:
        """Wait for a message, if that is to be ``read``, for room to ``write``, and for whatever else may come.

        That is the end of the process, text on its standard error, or a signal.  Return the descriptors that are ready;
        that of the signals is emptied.
        """
        poll = select.poll()
        for fd, event, is_wanted in (
            (self.process.stdout, select.POLLIN, read),
            (self.process.stdin, select.POLLOUT, write),
            (self.process.pidfd, select.POLLIN, True),
            (self.interrupts.fd, select.POLLIN, True),
            (self.error_text.fd, select.POLLIN, not self.error_text.ended),
        ):
            if is_wanted:
                poll.register(fd, event)
        ready = {fd for fd, _ in poll.poll(int(seconds * 1000) + (seconds > 0))}
        if self.interrupts.fd in ready:
            self.interrupts.drain()
        return ready

    def end(self) -> Ended:
        """Kill what still runs, pass on the last of its standard error, and return how it ended; again, just that."""
        self.process.kill_group()
        self.process.wait()
        with self.interrupts.put_off():
            self.process.reap()
        ended = self.process.kill_left()
        self.error_text.close()
        return ended


@contextmanager
def launch(
    line: CommandLine, repository: Repository | None, options: RunOptions, *, limits: Limits = Limits()
) -> Iterator[Launched]:
    """Start an extension for a command line; in the end, no process is left, and no staging directory.

    ``repository`` is open as the command's manifest asks.  Raises UsageError without one that is asked for,
    PermissionDeniedError, and what making staging and processes raises.
    """
    extension = line.extension
    if line.command.repository == "none":
        repository = None
    elif repository is None:
        raise UsageError(f"{line} needs a repository")
    if not os.path.exists("/proc/self"):  # by which it is found what a run leaves behind
        raise without_proc(f"running extension {extension.name}")
    descriptors = _user_descriptors(line.command, options.stdio)
    store = None if repository is None else repository.store
    with Interrupts() as interrupts, Staging.create(store) as staging:
        places = _places(line)
        account = None if options.account is None else account_of(options.account)
        if account is not None:
            account.give(staging.work_fd)
        cache = cache_directory(extension.name, store, options.cache_dir, account)
        environment = clean_environment(os.environ, extension.manifest.environment) | {"TMPDIR": staging.place}
        if account is not None:
            environment = account.environment(environment)
        with Doing(f"starting extension {extension.name}"):
            reach = reach_of(
                line,
                own=(staging.place,) if cache is None else (staging.place, cache),
                objects=None if store is None else f"{store.path}/objects",
                environment=environment,
                directory=options.directory,
                extra=options.readable,
            )
            with reach.ruleset() as ruleset:
                if not ruleset.empty:
                    environment["PATH"] = reach.search_path(environment["PATH"])
                process = spawn(
                    Program(
                        extension.executable,
                        staging.place,
                        environment,
                        descriptors,
                        ruleset,
                        account,
                        file_size=limits.staging_bytes,
                        # Of files of the user's own, all attributes are read and written: only where one was typed.
                        attributes=bool(line.typed("path-read", "path-write")),
                    )
                )
        interrupts.kill = process.kill_group
        error_text = ErrorText(process.stderr, extension.name, options.stdio.stderr)
        launched = Launched(
            *(line, repository, options, limits, places, staging, cache, account, interrupts, process, error_text)
        )
        try:
            yield launched
        finally:
            launched.end()


def _places(line: CommandLine) -> dict[str, tuple[int, int]]:
    """Return device and inode of what is at each typed path, as long as nobody can have exchanged it."""
    places: dict[str, tuple[int, int]] = {}
    for path in line.typed("path-read", "path-write"):
        with suppress(OSError):  # what is not there yet the extension may make, but not have read or mounted at
            status = os.stat(path)
            places[path] = status.st_dev, status.st_ino
    return places


def _user_descriptors(command: Command, stdio: Stdio) -> dict[int, int]:
    """Return those of the user's standard files that a command gets, by the numbers that they have there."""
    descriptors: dict[int, int] = {}
    for word, to, fd, stream in (
        ("in", USER_STDIN, stdio.stdin, "input"),
        ("out", USER_STDOUT, stdio.stdout, "output"),
    ):
        if word in command.stdio:
            if os.isatty(fd):
                raise PermissionDeniedError(
                    f"standard {stream} is a terminal", hint=f"redirect standard {stream} from or to a file or a pipe"
                )
            descriptors[to] = fd
    return descriptors
