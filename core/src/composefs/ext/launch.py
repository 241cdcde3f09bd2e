"""Starting an extension: its directories, what it may reach, its process; and the end of all that.

Only what this takes is imported here and where the command line is parsed.  Whatever else a run needs is imported by
whom it starts for (composefs.ext.session): while the extension loads on one processor, the core loads on another.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from composefs.errors import Doing, PermissionDeniedError, UsageError, without_proc
from composefs.ext.account import CACHE, Account, account_of
from composefs.ext.commandline import CommandLine
from composefs.ext.discovery import Extension
from composefs.ext.environment import clean_environment
from composefs.ext.errortext import ErrorText
from composefs.ext.interrupts import Interrupts
from composefs.ext.manifest import Command
from composefs.ext.options import RunOptions, Stdio
from composefs.ext.process import USER_STDIN, USER_STDOUT, Ended, Process, Program, spawn
from composefs.ext.reach import reach_of
from composefs.ext.trust import distrust
from composefs.protocol.limits import Limits
from composefs.repository.staging import Staging
from composefs.tuples import NamedTuple

if TYPE_CHECKING:
    from composefs.repository import Repository
    from composefs.repository.store import Store

__all__ = ["Launched", "launch"]

_MAX_NAME = 255
"""Bytes of a file's name (NAME_MAX)."""


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
        """Wait for what it says, if that is to be ``read``, for room to ``write``, and for all else that may come.

        Return the descriptors that are ready; that of interrupts is made ready for the next one.
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
        """Kill what still runs, pass on what it said last, and return how it ended; once more, just that."""
        self.process.kill_group()
        ended = self.process.reap()
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
        cache = _cache(extension, store, options.cache_dir, account)
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
    places: dict[str, tuple[int, int]] = {}
    for path in line.typed("path-read", "path-write"):
        with suppress(OSError):  # what is not there yet the extension may make, but not have read or mounted at
            status = os.stat(path)
            places[path] = status.st_dev, status.st_ino
    return places


def _user_descriptors(command: Command, stdio: Stdio) -> dict[int, int]:
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


def _cache(extension: Extension, store: Store | None, base: str | None, account: Account | None) -> str | None:
    """Make the directory private to extension, repository and account; None where there is no place for one.

    What is in a cache is believed, so that nobody else may have put it there.
    """
    if base is None and account is not None:
        base = f"{CACHE}/{account.uid}"
    elif base is None:
        home = os.environ.get("XDG_CACHE_HOME", "")
        if not home.startswith("/"):  # to be ignored, says the XDG Base Directory Specification
            home = os.path.join(os.environ.get("HOME", ""), ".cache")
        if not home.startswith("/"):
            return None
        base = f"{home}/composefs"
    parent = f"{base}/ext/{extension.name}"
    directory = f"{parent}/{'none' if store is None else _cache_name(store.path, store.algorithm.name)}"
    way = directory if account is None else parent  # the directory itself is the account's
    if not _is_out_of_reach(way, missing=True):
        return None
    try:
        _make_parents(parent, 0o700 if account is None else 0o711)
        os.makedirs(directory, 0o700, exist_ok=True)
        # Once more: what was missing somebody else may have made first, or have taken away since.
        if not _is_out_of_reach(way, missing=False):
            return None
        if account is not None:
            os.chown(directory, account.uid, account.gid, follow_symlinks=False)
            return directory if account.reaches(parent) else None
    except OSError:
        return None
    return directory if os.access(directory, os.W_OK) else None


def _cache_name(repository: str, algorithm: str) -> str:
    """Make a file name of a repository's path and of what its ids are, which may be another once it is made anew.

    It is a digest only where that is too long: hashlib takes 4 ms to load.
    """
    path = os.path.realpath(repository).strip("/").replace("%", "%25").replace("/", "%2F")
    name = f"{path}.{algorithm}"
    if len(os.fsencode(name)) <= _MAX_NAME:
        return name
    import hashlib

    return hashlib.sha256(os.fsencode(name)).hexdigest()


def _make_parents(directory: str, mode: int) -> None:
    """Make what is missing, with this mode whatever the umask is: an account gets through, nobody else may write."""
    if os.path.isdir(directory):
        return
    _make_parents(os.path.dirname(directory), mode)
    os.makedirs(directory, mode, exist_ok=True)
    os.chmod(directory, mode)


def _is_out_of_reach(directory: str, *, missing: bool) -> bool:
    """Whether nobody else decides what is in a directory, or by a symlink on the way which one it is.

    ``missing`` is the answer where the way to it is trusted as far as it is there.
    """
    try:
        return distrust(os.path.abspath(directory), os.geteuid(), os.environ.get("HOME") or "/") is None
    except FileNotFoundError:
        return missing
    except OSError:
        return False
