"""The kinds of repository to pull from: at a URL, and in a directory."""

from __future__ import annotations

from composefs_ext.errors import NotFoundError, UnsupportedError
from composefs_ostree.config import MAX_CONFIG, parse_config

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from composefs_ext import Core
    from composefs_ostree.files import Files
    from composefs_ostree.transport import Transport

    class Source(Protocol):
        """An ostree repository to pull from."""

        def open(self, core: Core) -> Transport:
            """Check that there is a repository which can be read; return what brings its refs and metadata."""

        def directories(self) -> list[str]:
            """Return the directories in which refs can be looked for, after ``open``; raise NotFoundError if none."""

        def files(self, inline_limit: int) -> Files:
            """Return what brings its content, after ``open``; each worker process has one of its own."""


__all__ = ["DirectorySource", "UrlSource"]

METADATA_REQUESTS = 32
FILE_REQUESTS = 8
"""Requests under way at a time: for metadata, and of each worker for content."""


class UrlSource:
    """An archive repository on a web server."""

    def __init__(self, url: str) -> None:
        """Raise UsageError if this is no URL of a repository."""
        from composefs_ostree.http import check_url

        self._url = check_url(url)

    def open(self, core: Core) -> Transport:
        """Read the config; raise NotFoundError or UnsupportedError."""
        from composefs_ostree.http import HttpTransport
        from composefs_ostree.transport import read

        transport = HttpTransport(self._url, METADATA_REQUESTS, lambda line: core.log("warning", line))
        data = read(core, transport, "config", MAX_CONFIG)
        where = transport.where("config")
        if data is None:
            raise NotFoundError(
                f"{where}: not found, so this is not an ostree repository", hint="check the URL", subject=where
            )
        config = parse_config(data, where)
        if not config.is_archive:
            raise UnsupportedError(
                f"{where}: the repository has the mode {config.mode!r}; over HTTP only archives can be pulled from",
                hint="copy it there: ostree init --repo=A --mode=archive; ostree --repo=A pull-local REPOSITORY REF",
                subject=where,
            )
        return transport

    def directories(self) -> list[str]:
        """Raise NotFoundError: directories cannot be listed over HTTP."""
        raise NotFoundError(
            "the repository has no summary, which alone would tell its refs",
            hint="pull a ref whose name you know, or have ostree summary -u run there",
        )

    def files(self, inline_limit: int) -> Files:
        """Return connections of their own."""
        from composefs_ostree.files import FetchedFiles
        from composefs_ostree.http import HttpTransport

        return FetchedFiles(HttpTransport(self._url, FILE_REQUESTS), inline_limit)


class DirectorySource:
    """A repository of any mode on this machine."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def open(self, _core: Core) -> Transport:
        """Read its config and those of its parents; raise NotFoundError, UnsupportedError or CorruptError."""
        from composefs_ostree.places import find_places
        from composefs_ostree.transport import DirectoryTransport

        self._places = find_places(self._directory)
        return DirectoryTransport(*self.directories())

    def directories(self) -> list[str]:
        """Return its directory and those of its parents."""
        return [place.directory for place in self._places]

    def files(self, inline_limit: int) -> Files:
        """Return readers for the places that were found."""
        from composefs_ostree.local import LocalFiles

        return LocalFiles(self._places, inline_limit)
