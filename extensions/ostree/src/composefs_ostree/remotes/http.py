"""Repositories over HTTP, by libcurl's multi interface: many requests at a time in one thread over a few connections.

Small objects decide how long a pull takes, and this is the client that costs least for each of them.  What may pass
(:mod:`composefs_ostree.remotes.failures`) is tried again, later and later.  A host that has never answered and cannot
be connected to is left sooner: its name or port may be wrong, and whoever has typed them waits.
"""

from __future__ import annotations

import os
from bisect import insort
from collections import deque
from operator import itemgetter
from time import monotonic

from composefs_ostree import __version__
from composefs_ostree.fetching.traffic import ToldWaits, traffic
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.urls import without_password

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from composefs_ext.errors import ExtError
    from composefs_ostree.fetching.conditional import Conditions
    from composefs_ostree.fetching.transport import Fetch
    from composefs_ostree.remotes.clientcert import Handshake
    from composefs_ostree.remotes.failures import Failure
    from composefs_ostree.remotes.settings import Settings

__all__ = ["CONNECTIONS", "HttpTransport"]

CONNECTIONS = 8
"""Connections of one transport, unless the user wants fewer."""

_CONNECT_SECONDS = 30
_MAX_REDIRECTS = 10
_BUFFER_SIZE = 256 << 10
"""Bytes that are taken from a connection at once.  With libcurl's 16 KiB, 760 MB in large files cost 0.4 s more."""
_LONG_WAIT = 1.0
"""Seconds from which on the user is told that something is waited for."""

_LONGEST_BACK_OFF = 60.0
"""Seconds: how far repetitions get apart, unless the server wants more."""

# The other, which pycurl has alone before 7.45.5, counts in a double, and pycurl warns of it since 7.46.
_SIZE_DOWNLOAD = pycurl.SIZE_DOWNLOAD_T if hasattr(pycurl, "SIZE_DOWNLOAD_T") else pycurl.SIZE_DOWNLOAD

_BAD_REQUEST = 400
_NOT_MODIFIED = 304

_ANSWERED: set[str] = set()
"""The hosts that have answered, each as a URL without a path: this process, or the one that it was forked from."""


class HttpTransport:
    """A repository at a URL; ``requests`` is how many are on their way at a time, over ``connections``.

    ``tell``, if given, is called before a wait that somebody would wonder about, with a line for the user and the
    seconds.  ``seconds`` bounds each transfer unless the settings do.
    """

    def __init__(
        self,
        url: str,
        requests: int,
        settings: Settings,
        tell: Callable[[str, float], object] | None,
        *,
        connections: int,
        seconds: int,
    ) -> None:
        self._url = url
        self._shown = without_password(url)
        self._host = "/".join(url.lower().split("/", 3)[:3])
        self._is_secure = url.lower().startswith("https:")
        self._settings = settings
        self._options = settings.options(url)
        self._seconds = settings.seconds or seconds
        self._meter = settings.meter
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, connections)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._idle: list[pycurl.Curl] = []
        self._requests = requests
        self._active: dict[pycurl.Curl, tuple[Fetch, Handshake | None]] = {}
        self._paused: list[pycurl.Curl] = []
        self._queue: deque[Fetch] = deque()
        self._later: list[tuple[float, Fetch]] = []
        self._tell = tell
        self._told = ToldWaits()

    def start(self, fetch: Fetch) -> None:
        """Queue a fetch."""
        self._queue.append(fetch)

    def step(self) -> list[Fetch]:
        """Let curl work, give its idle handles something to do, and return the fetches that have ended."""
        if self._meter is not None and self._meter.pause():
            return []
        ended: list[Fetch] = []
        self._resume(ended)
        now = monotonic() if self._later else 0.0
        while self._later and self._later[0][0] <= now:
            self._queue.appendleft(self._later.pop(0)[1])
        self._fill()
        while True:
            self._multi.perform()
            _, succeeded, failed = self._multi.info_read(64)
            if not succeeded and not failed:
                return ended
            for handle in succeeded:
                self._end(handle, None, "", ended)
            for handle, code, reason in failed:
                self._end(handle, code, reason, ended)
            # The next requests leave before the caller works on these bodies, so that the server does not wait for us.
            self._fill()

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Return curl's sockets."""
        if self._meter is not None and self._meter.pause():
            return [], []
        readers, writers, _ = self._multi.fdset()
        return readers, writers

    def timeout(self) -> float | None:
        """Return the earlier of curl's own timeout and the next repetition, in seconds; 0 while ``step`` has work."""
        if self._meter is not None and (pause := self._meter.pause()):
            return pause
        if self._paused or (self._queue and len(self._active) < self._requests):
            return 0.0  # queued since the last step: curl does not know of it yet, and would never wake us
        milliseconds = self._multi.timeout()
        waits = [milliseconds / 1000] if milliseconds >= 0 else [1.0] if self._active else []
        if self._later:
            waits.append(max(0.0, self._later[0][0] - monotonic()))
        return min(waits, default=None)

    def where(self, path: str) -> str:
        """Return the URL of a file, without a password or query."""
        return f"{self._shown}/{path.partition('?')[0]}"

    def next_mirror(self) -> bool:
        """Tell that there is no other mirror."""
        return False

    def _fill(self) -> None:
        while self._queue and len(self._active) < self._requests:
            handle = self._idle.pop() if self._idle else self._make()
            fetch = self._queue.popleft()
            fetch.begin()
            handle.setopt(pycurl.URL, f"{self._url}/{fetch.path}".encode())
            # With it, curl closes the connection at an error; a new one takes two round trips, with TLS three or four.
            handle.setopt(pycurl.FAILONERROR, not fetch.collects)
            handle.setopt(pycurl.WRITEFUNCTION, fetch.take if self._meter is None else self._metered(handle, fetch))
            if fetch.conditions is not None:
                self._ask_for_changes(handle, fetch.conditions)
            handshake = _watch(handle) if fetch.attempts > 1 and self._is_secure else None
            self._active[handle] = fetch, handshake
            self._multi.add_handle(handle)

    def _metered(self, handle: pycurl.Curl, fetch: Fetch) -> Callable[[bytes], int | None]:
        """Return what gives a fetch its bytes as the meter allows; curl keeps those that come too early."""
        meter = self._meter
        assert meter is not None

        def take(data: bytes) -> int | None:
            if meter.pause():
                self._paused.append(handle)
                return pycurl.WRITEFUNC_PAUSE
            meter.add(len(data))
            return fetch.take(data)

        return take

    def _resume(self, ended: list[Fetch]) -> None:
        """Have the transfers go on that the meter has stopped, those first that wait the longest."""
        paused, self._paused = self._paused, []
        for handle in paused:
            if handle not in self._active:
                continue
            try:
                handle.pause(pycurl.PAUSE_CONT)
            except pycurl.error:  # the fetch refuses what has waited
                self._end(handle, pycurl.E_WRITE_ERROR, "refused", ended)

    def _make(self) -> pycurl.Curl:
        handle = pycurl.Curl()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.FOLLOWLOCATION, 1),
            (pycurl.MAXREDIRS, _MAX_REDIRECTS),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.USERAGENT, f"composefs-ostree/{__version__}"),
            (pycurl.CONNECTTIMEOUT, _CONNECT_SECONDS),
            (pycurl.TIMEOUT, self._seconds),
            *self._options,
        ):
            # Of text pycurl takes what is ASCII only.
            handle.setopt(option, os.fsencode(value) if isinstance(value, str) else value)
        if self._meter is None:  # else so much at once would be more than the user allows
            handle.setopt(pycurl.BUFFERSIZE, _BUFFER_SIZE)
        return handle

    def _ask_for_changes(self, handle: pycurl.Curl, conditions: Conditions) -> None:
        """Have the server send the file only if it is another one than we know."""
        headers: list[bytes] = next((value for option, value in self._options if option == pycurl.HTTPHEADER), [])
        handle.setopt(pycurl.HTTPHEADER, [*headers, *conditions.headers()])
        handle.setopt(pycurl.HEADERFUNCTION, conditions.take_header)

    def _end(self, handle: pycurl.Curl, code: int | None, reason: str, ended: list[Fetch]) -> None:
        """Take the outcome of a transfer: curl's error, if it has one, and the reason in its words."""
        fetch, handshake = self._active.pop(handle)
        self._multi.remove_handle(handle)
        if fetch.conditions is None and handshake is None:  # else it has options that are no other request's
            self._idle.append(handle)
        status = handle.getinfo(pycurl.RESPONSE_CODE)
        traffic.received += int(handle.getinfo(_SIZE_DOWNLOAD))
        if status:
            _ANSWERED.add(self._host)
        if status >= 400:  # an answer, whatever became of the page that comes with it
            code = fetch.error = None
        conditions = fetch.conditions
        if code is None and status == _NOT_MODIFIED and conditions is not None and conditions.are_set:
            conditions.unchanged = True
        elif fetch.error is None and (code is not None or status != 200):  # else the fetch itself refused what came
            from composefs_ostree.remotes.failures import Failure

            failure = Failure.of(handle, self.where(fetch.path), code, reason)
            fetch.error = self._lasting(fetch, failure, handshake)
            if fetch.error is None:
                self._repeat(fetch, failure)
                return
        ended.append(fetch)

    def _lasting(self, fetch: Fetch, failure: Failure, handshake: Handshake | None) -> ExtError | None:
        """Return the error of a request that is not to be tried again, None of one that may succeed then."""
        is_known = self._host in _ANSWERED
        tries = self._settings.retries if is_known or failure.is_connected else self._settings.first_retries
        is_last = fetch.attempts > tries
        if self._is_secure and (failure.code is not None or failure.status == _BAD_REQUEST):
            from composefs_ostree.remotes.clientcert import certificate_error

            is_given = any(option == pycurl.SSLCERT for option, _ in self._options)
            # A server that takes ours may close a connection for other reasons, which may pass.
            has_asked = handshake is not None and handshake.asks and (is_last or not is_given)
            wanted = certificate_error(
                failure, is_given=is_given, page=fetch.data, has_asked=has_asked, is_last=is_last
            )
            if wanted is not None:
                return wanted
        if not is_last and failure.may_pass(self._seconds, is_known=is_known):
            return None
        return failure.error(is_needed=fetch.is_needed, tried=fetch.attempts)

    def _repeat(self, fetch: Fetch, failure: Failure) -> None:
        # Up to a quarter more, so that the requests that failed together do not come again together.
        delay = min(self._settings.retry_seconds * 2 ** min(fetch.attempts - 1, 20), _LONGEST_BACK_OFF)
        delay = max(delay, failure.retry_after) * (1 + os.urandom(1)[0] / 1024)
        now = monotonic()
        insort(self._later, (now + delay, fetch), key=itemgetter(0))
        if self._tell and delay >= _LONG_WAIT and self._told.is_news(now, delay):
            self._tell(f"{failure.error(is_needed=fetch.is_needed).message}; trying again in {delay:.0f} s", delay)


def _watch(handle: pycurl.Curl) -> Handshake:
    """Have curl tell of the connection that it makes: the one before may have failed for want of a certificate."""
    from composefs_ostree.remotes.clientcert import Handshake

    handshake = Handshake()
    for option, value in handshake.options:
        handle.setopt(option, value)
    return handshake
