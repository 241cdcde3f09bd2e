"""A repository in a directory, and the repositories in which it looks for what it lacks (``core.parent``).

Its files are read by a transport as those of a repository elsewhere are; the content of archives and of others by
:mod:`composefs_ostree.fetching.local`.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import suppress
from typing import NamedTuple

from composefs_ext.errors import (
    CorruptError,
    ExtError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
    from_exception,
)
from composefs_ext.files import open_regular, read_regular
from composefs_ostree.fetching.blame import blamed
from composefs_ostree.fetching.jobs import READ_SIZE, ReadyFiles
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.formats.config import MAX_CONFIG, Config, parse_config

__all__ = ["DirectoryTransport", "LocalRepository", "find_repositories"]

_MAX_REPOSITORIES = 16


class LocalRepository(NamedTuple):
    """One repository: its directory and its config."""

    directory: str
    config: Config


def find_repositories(directory: str) -> list[LocalRepository]:
    """Return the repository in a directory and its parents, nearest first.

    Raises NotFoundError if there is none, UnsupportedError or CorruptError if one cannot be read.
    """
    found: list[LocalRepository] = []
    following: str | None = directory
    while following is not None:
        try:
            repository = _open(following)
        except PermissionError as error:
            from shlex import quote

            what = "the repository's parent cannot be read" if found else error.strerror
            raise PermissionDeniedError(
                f"{following}/config: {what}",
                hint=f"check the owner and mode; a confined extension needs cfsctl --ext-read {quote(following)}",
                subject=following,
            ) from None
        if not os.path.isabs(repository.config.parent or "/"):
            raise UnsupportedError(
                f"{repository.directory}/config: the parent {repository.config.parent!r} is not an absolute path",
                hint="what it is relative to depends on who reads it; give the whole path",
                subject=repository.directory,
            )
        if len(found) == _MAX_REPOSITORIES:
            raise CorruptError(
                f"{repository.directory}/config: the parents of this repository do not end",
                subject=repository.directory,
            )
        found.append(repository)
        following = repository.config.parent
    return found


def _open(directory: str) -> LocalRepository:
    path = f"{directory}/config"
    try:
        data = read_regular(path, MAX_CONFIG)
    except (FileNotFoundError, NotADirectoryError):
        is_ours = os.path.exists(f"{directory}/meta.json")
        raise NotFoundError(
            f"{path}: not found, so this is not an ostree repository",
            hint="from a composefs repository: cfsctl copy --from PATH ostree/REF" if is_ours else "check the path",
            subject=path,
        ) from None
    except CorruptError as error:
        raise blamed(path, error) from None
    return LocalRepository(directory, parse_config(data, path))


class DirectoryTransport(ReadyFiles):
    """A repository in a directory.  A fetch is read when ``step`` comes to it, a few at a time."""

    _AT_ONCE = 16

    def __init__(self, directory: str, *parents: str) -> None:
        """Objects and refs that the repository lacks are looked for in its parents."""
        self._directories = (directory, *parents)
        self._queue: deque[Fetch] = deque()

    def start(self, fetch: Fetch) -> None:
        """Queue a fetch."""
        self._queue.append(fetch)

    def step(self) -> list[Fetch]:
        """Read the next few files."""
        ended = [self._queue.popleft() for _ in range(min(self._AT_ONCE, len(self._queue)))]
        for fetch in ended:
            fetch.begin()
            try:
                self._read(fetch)
            except (FileNotFoundError, NotADirectoryError):
                fetch.error = NotFoundError("not found")
            except (ExtError, OSError) as error:
                fetch.error = from_exception(error)
        return ended

    def _read(self, fetch: Fetch) -> None:
        fd = self._open(fetch.path)
        try:
            while data := os.read(fd, READ_SIZE):
                if fetch.take(data) is not None or len(data) < READ_SIZE:
                    return
        finally:
            os.close(fd)

    def _open(self, path: str) -> int:
        is_object, is_ref = path.startswith("objects/"), path.startswith("refs/")
        if not (is_object or is_ref):
            return open_regular(self.where(path))
        for directory in self._directories:
            place = f"{directory}/{path}"
            if is_ref and os.path.isdir(place):  # what the names of others begin with, os of os/stable
                continue
            with suppress(FileNotFoundError, NotADirectoryError):
                return open_regular(place, follow=not is_object)
        raise FileNotFoundError(path)

    def where(self, path: str) -> str:
        """Return the absolute path of a file, in the repository itself."""
        return f"{self._directories[0]}/{path}"
