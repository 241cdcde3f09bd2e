"""The kinds of repository to pull from: at a URL, and in a directory."""

from __future__ import annotations

from composefs_ext.errors import UsageError
from composefs_ostree.signatures.policy import NO_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from composefs_ext import Core
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.fetching.stage import SmallContents
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.remotes.limits import Limits
    from composefs_ostree.remotes.record import Remote
    from composefs_ostree.remotes.summaries import Summaries
    from composefs_ostree.signatures.policy import Options

    class ObjectSource(Protocol):
        """What brings the objects of commits, once it is open."""

        has_objects: bool
        """Whether it brings any object of a commit, and not just what is in a delta."""

        def heading(self) -> bytes | None:
            """Return a summary that tells about the repository, if not its refs; None if it has none."""

        def content_transport(self) -> Transport:
            """Return what brings content and static deltas; each worker process has one of its own."""

        def files(self, small: SmallContents) -> Files:
            """Return what brings its content; each worker process has one of its own."""

        @property
        def max_workers(self) -> int | None:
            """How many workers there may be, None if nothing but the processors bounds them."""

    class Source(ObjectSource, Protocol):
        """An ostree repository to pull from.  All but ``remote`` and ``open`` is for after ``open``."""

        remote: Remote | None
        """The remote that this is, None if the user gave a place and no name."""

        is_near: bool
        """Whether it is on this machine, so that files are as near as deltas."""
        summaries: Summaries
        """What tells its refs."""

        def open(self, core: Core) -> Transport:
            """Check that there is a repository which can be read; return what brings its refs and metadata."""

        def directories(self) -> list[str]:
            """Return the directories in which refs can be looked for; raise NotFoundError if there are none."""


__all__ = ["DirectorySource", "open_source"]


def open_source(url: str | None, remote: Remote | None, limits: Limits, options: Options) -> Source:
    """Return the source at a URL, of a remote, or at another URL than the remote's but with its settings.

    Raises UsageError for a URL that cannot be a repository's, and what a remote's vendor has to say instead of a pull.
    """
    if remote is not None:
        remote.check_pullable()
        url = url or remote.place
        if not url:
            raise UsageError(f"remote {remote.name!r} has neither url nor metalink")
    assert url is not None  # there is a remote, or a URL
    if url.lower().startswith("file:"):
        from composefs_ostree.remotes.urls import directory_of

        return DirectorySource(directory_of(url), remote, options)
    from composefs_ostree.sources.url import UrlSource

    return UrlSource(url, remote, limits, options)


class DirectorySource:
    """A repository of any mode on this machine."""

    has_objects = True
    is_near = True
    max_workers = None
    summaries: Summaries

    def __init__(self, directory: str, remote: Remote | None = None, options: Options = NO_OPTIONS) -> None:
        self._directory = directory
        self.remote = remote
        self._options = options

    def open(self, core: Core) -> Transport:
        """Read its config and those of its parents; raise NotFoundError, UnsupportedError or CorruptError."""
        from composefs_ostree.fetching.directories import find_repositories
        from composefs_ostree.remotes.summaries import Summaries

        self._repositories = find_repositories(self._directory)
        transport = self.content_transport()
        self.summaries = Summaries(core, transport, self.remote, self._options, is_near=True)
        return transport

    def directories(self) -> list[str]:
        """Return its directory and those of its parents."""
        return [repository.directory for repository in self._repositories]

    def heading(self) -> bytes | None:
        """Return the summary."""
        return self.summaries.heading()

    def content_transport(self) -> Transport:
        """Return what reads its files and those of its parents."""
        from composefs_ostree.fetching.directories import DirectoryTransport

        return DirectoryTransport(*self.directories())

    def files(self, small: SmallContents) -> Files:
        """Return readers for the repositories that were found."""
        from composefs_ostree.fetching.local import LocalFiles

        return LocalFiles(self._repositories, small)
