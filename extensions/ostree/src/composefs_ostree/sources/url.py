"""A repository on the web: its URL, those of its mirrors, and the transports that go there."""

from __future__ import annotations

from composefs_ext.errors import NetworkError, NotFoundError, UnsupportedError
from composefs_ext.tuples import NamedTuple
from composefs_ext.workers import available_cores
from composefs_ostree.fetching.blame import Blaming
from composefs_ostree.fetching.traffic import traffic
from composefs_ostree.fetching.transport import Fetch, fetched, is_page, read, read_all
from composefs_ostree.formats.config import MAX_CONFIG, parse_config
from composefs_ostree.remotes.credentials import netrc_problem
from composefs_ostree.remotes.http import CONNECTIONS, HttpTransport
from composefs_ostree.remotes.settings import CONTENT_SECONDS, METADATA_SECONDS, settings_of
from composefs_ostree.remotes.summaries import Summaries
from composefs_ostree.remotes.urls import check_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from composefs_ext import Core
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.fetching.stage import SmallContents
    from composefs_ostree.fetching.transport import Transport
    from composefs_ostree.remotes.limits import Limits
    from composefs_ostree.remotes.metalink import Metalink
    from composefs_ostree.remotes.mirrors import Mirrored
    from composefs_ostree.remotes.record import Remote
    from composefs_ostree.signatures.policy import Options

__all__ = ["UrlSource"]

METADATA_REQUESTS = 32
FILE_REQUESTS = 8
"""Requests under way at a time: for metadata, and of each worker for content."""

_MIRROR_LIST = "mirrorlist="
_METALINK = "metalink="


class Shares(NamedTuple):
    """How many connections metadata get, and each worker, and how many workers there may be."""

    metadata: int
    of_worker: int
    workers: int


class Mirrors(NamedTuple):
    """The URLs of places that have the same files, the best first; the last ``late`` of them have kept us waiting."""

    urls: Sequence[str]
    late: int = 0


class UrlSource:
    """An archive repository on one or more web servers.

    The summary and what may change comes from ``url``, objects and deltas from ``contenturl`` if there is one.  Either
    may be a list of mirrors instead, and a metalink tells mirrors together with the digest of the summary.
    """

    has_objects = True
    is_near = False
    summaries: Summaries

    def __init__(self, url: str, remote: Remote | None, limits: Limits, options: Options) -> None:
        """Raise UsageError if this, or the remote's ``contenturl``, is no URL of a repository."""
        self.remote = remote
        self._options = options
        self._summary = ""
        is_metalink = url.startswith(_METALINK)
        self._metalink = check_url(url.removeprefix(_METALINK), query=True) if is_metalink else None
        self._url = "" if is_metalink else _check(url)
        contenturl = remote.contenturl if remote is not None else None
        self._contenturl = None if contenturl is None else _check(contenturl)
        named = [place.removeprefix(_MIRROR_LIST) for place in (self._metalink, self._url, self._contenturl) if place]
        self._settings = settings_of(remote, limits, named)
        self._content = Mirrors(())

    def open(self, core: Core) -> Transport:
        """Find the mirrors and read the config; raise NotFoundError, NetworkError or UnsupportedError."""
        if problem := netrc_problem():
            core.log("warning", problem)
        metalink = self._read_metalink(core)
        urls = self._listed(core, self._url) if metalink is None else metalink.urls
        connections = self._shares.metadata
        own = connections if self._contenturl is None else 1  # for a few files
        metadata, self._content = self._reach(core, urls, own, has_config=True)
        transport: Transport = metadata
        if self._contenturl is not None:
            from composefs_ostree.remotes.mirrors import Routed

            urls = self._listed(core, self._contenturl)
            content, self._content = self._reach(core, urls, connections, has_config=False)
            transport = Routed(metadata, content)
        self._summary = transport.where("summary")
        self.summaries = Summaries(
            core, transport, self.remote, self._options, metalink=metalink, next_mirror=metadata.next_mirror
        )
        return transport

    def _read_metalink(self, core: Core) -> Metalink | None:
        if self._metalink is None:
            return None
        from composefs_ostree.remotes.metalink import MAX_METALINK, parse_metalink

        data, where = self._read(core, self._metalink, MAX_METALINK)
        with Blaming(where):
            return parse_metalink(data)

    def _reach(
        self, core: Core, urls: Sequence[str], connections: int, *, has_config: bool
    ) -> tuple[HttpTransport | Mirrored, Mirrors]:
        """Return a transport to places that have the same files, and these places in the order in which to ask them.

        Of several places, the first is one that answers.  Raises the first place's error if none does.
        """

        def going_to(places: Sequence[str]) -> list[HttpTransport]:
            return self._transports(places, METADATA_REQUESTS, METADATA_SECONDS, connections, tell)

        def tell(line: str, _seconds: float) -> None:
            core.log("warning", line)

        transports = going_to(urls)
        fetches = [Fetch("config", MAX_CONFIG, is_needed=has_config) for _ in urls]
        if len(urls) == 1:
            if has_config:
                read_all(core, transports[0], fetches)
                _check_config(transports[0], fetches[0])
            return transports[0], Mirrors(urls)
        from composefs_ostree.remotes.answering import Search

        check = _check_config if has_config else _check_answer
        prompt, late = Search(core, transports, fetches, check, self._settings.patience).run()
        mirrors = Mirrors([urls[number] for number in (*prompt, *late)], len(late))
        ready = [transports[number] for number in prompt]
        if late:  # whose config is on its way still
            ready += going_to(mirrors.urls)[len(prompt) :]
        return _together(ready, len(late)), mirrors

    def directories(self) -> list[str]:
        """Raise NotFoundError: directories cannot be listed over HTTP."""
        raise NotFoundError(
            f"{self._summary}: the repository has no summary, which alone would tell its refs",
            hint="pull a ref whose name you know, or have ostree summary -u run there",
        )

    def heading(self) -> bytes | None:
        """Return the summary, or what stands for it in the index if that was read."""
        return self.summaries.heading()

    def content_transport(self) -> Transport:
        """Return connections of their own to where content is."""
        urls, late = self._content
        shares = self._shares.of_worker
        return _together(self._transports(urls, FILE_REQUESTS, CONTENT_SECONDS, shares, traffic.tell), late)

    def files(self, small: SmallContents) -> Files:
        """Return the archive's files, over connections of their own."""
        from composefs_ostree.fetching.files import FetchedFiles

        return FetchedFiles(self.content_transport(), small)

    @property
    def max_workers(self) -> int:
        """How many workers can have a connection each."""
        return self._shares.workers

    @property
    def _shares(self) -> Shares:
        """How many connections everybody gets of those that may be open at a time."""
        most = self._settings.connections
        if most is None:
            return Shares(CONNECTIONS, CONNECTIONS, available_cores())
        metadata = max(1, most // 4)
        left = most - metadata - (self._contenturl is not None)
        workers = max(1, min(left, available_cores()))
        return Shares(metadata, max(1, left // workers), workers)

    def _transports(
        self,
        bases: Sequence[str],
        requests: int,
        seconds: int,
        connections: int,
        tell: Callable[[str, float], object] | None = None,
    ) -> list[HttpTransport]:
        """Return a transport to each of these places, which have the same files."""
        settings = self._settings
        if len(bases) > 1:  # there is another place to go to
            settings = settings._replace(retries=settings.mirror_retries, first_retries=settings.mirror_retries)
        return [
            HttpTransport(base, requests, settings, tell, connections=connections, seconds=seconds) for base in bases
        ]

    def _listed(self, core: Core, url: str) -> list[str]:
        """Return the places that a URL stands for."""
        if not url.startswith(_MIRROR_LIST):
            return [url]
        from composefs_ostree.remotes.mirrors import MAX_MIRROR_LIST, parse_mirror_list

        data, where = self._read(core, url.removeprefix(_MIRROR_LIST), MAX_MIRROR_LIST)
        with Blaming(where):
            return parse_mirror_list(data)

    def _read(self, core: Core, url: str, limit: int) -> tuple[bytes, str]:
        """Read a file that is in no repository; return how to name it, too."""
        base, _, _ = url.partition("?")[0].rpartition("/")
        path = url[len(base) + 1 :]
        (transport,) = self._transports([base], 1, METADATA_SECONDS, 1)
        data = read(core, transport, path, limit, is_needed=True)
        where = transport.where(path)
        if data is None:
            raise NotFoundError.at(where, "not found", hint="check the URL")
        return data, where


def _check(url: str) -> str:
    """Check the URL of a repository, or of a list of mirrors."""
    if url.startswith(_MIRROR_LIST):
        return _MIRROR_LIST + check_url(url.removeprefix(_MIRROR_LIST), query=True)
    return check_url(url)


def _together(transports: Sequence[HttpTransport], late: int) -> HttpTransport | Mirrored:
    if len(transports) == 1:
        return transports[0]
    from composefs_ostree.remotes.mirrors import Mirrored

    return Mirrored(transports, late)


def _check_config(transport: Transport, fetch: Fetch) -> None:
    """Raise unless what came of asking for the config is that of a repository that can be pulled from."""
    where = transport.where("config")
    if fetch.error is None and is_page(fetch.data):
        raise NotFoundError.at(
            where,
            "this is a web page, not the config of an ostree repository",
            hint="check the URL; a network that wants a login may answer with its own page for everything",
        )
    data = fetched(transport, fetch)
    if data is None:
        raise NotFoundError.at(where, "not found, so this is not an ostree repository", hint="check the URL")
    config = parse_config(data, where)
    if not config.is_archive:
        raise UnsupportedError.at(
            where,
            f"the repository has the mode {config.mode!r}; over HTTP only archives can be pulled from",
            hint="copy it there: ostree init --repo=A --mode=archive; ostree --repo=A pull-local REPOSITORY REF",
        )


def _check_answer(_transport: Transport, fetch: Fetch) -> None:
    """Raise unless the place has answered, whatever it has: where only content is there need not be a config."""
    if isinstance(fetch.error, NetworkError):
        raise fetch.error
