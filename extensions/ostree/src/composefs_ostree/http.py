"""Repositories over HTTP, by libcurl's multi interface: many requests at a time in one thread over a few connections.

Small objects decide how long a pull takes, and this is the client that costs least for each of them.  What may pass
is tried again, later and later: timeouts, names that do not resolve, connections refused or closed, bodies cut short,
and the statuses 408, 429 and 5xx.  403, 404 and 410 mean that there is no such file (object stores answer 403 for
that), and every other status is an error at once.
"""

from __future__ import annotations

import os
import re
from collections import deque
from heapq import heappop, heappush
from time import monotonic

import pycurl

from composefs_ext.errors import ExtError, NetworkError, NotFoundError, UsageError
from composefs_ostree import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from composefs_ostree.transport import Fetch

__all__ = ["ENVIRONMENT", "HttpTransport", "check_url"]

CONNECTIONS = 8
_CONNECT_SECONDS = 30
_LOW_SPEED_BYTES = 1000
_MAX_REDIRECTS = 10
_LONG_WAIT = 1.0
"""Seconds from which on the user is told that something is waited for."""

LOW_SPEED_SECONDS = "COMPOSEFS_OSTREE_LOW_SPEED_TIME"
RETRIES = "COMPOSEFS_OSTREE_RETRIES"
RETRY_SECONDS = "COMPOSEFS_OSTREE_RETRY_DELAY"
ENVIRONMENT = {LOW_SPEED_SECONDS: 30.0, RETRIES: 5.0, RETRY_SECONDS: 0.5}
"""Names of environment variables, and what holds without them: the seconds that a transfer may stay below 1000 bytes a
second, how often to try again, and the seconds before the first time (they double for each further one)."""

_ABSENT = frozenset({403, 404, 410})
_PASSING_STATUS = frozenset({408, 429})
_PASSING_FAILURE = frozenset(
    {
        pycurl.E_COULDNT_RESOLVE_PROXY,
        pycurl.E_COULDNT_RESOLVE_HOST,
        pycurl.E_COULDNT_CONNECT,
        pycurl.E_PARTIAL_FILE,
        pycurl.E_OPERATION_TIMEDOUT,
        pycurl.E_GOT_NOTHING,
        pycurl.E_SEND_ERROR,
        pycurl.E_RECV_ERROR,
        pycurl.E_HTTP2,
        92,  # CURLE_HTTP2_STREAM, which pycurl has no name for
    }
)
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Za-z:.%]+\]|[^:\[\]]+)(?::[0-9]+)?")
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def check_url(url: str) -> str:
    """Return a repository's URL without a slash at its end; raise UsageError for one that cannot be a repository's.

    The messages show nothing that may be a part of a password or a token.
    """
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in ("http", "https") or not separator or not rest or not url.isprintable() or " " in url:
        raise UsageError(
            f"{_without_password(url)!r} is not an http or https URL",
            hint="for a directory use: cfsctl ostree pull-local",
        )
    if not _HOST_AND_PORT.fullmatch(rest.partition("/")[0].rpartition("@")[2]):
        raise UsageError(
            f"the {scheme} URL has a malformed host or port",
            hint="in a user name or password write / as %2F, @ as %40 and ? as %3F; around an IPv6 address put [ and ]",
        )
    if (mark := min((mark for mark in "?#" if mark in rest), key=rest.index, default=None)) is not None:
        raise UsageError(
            f"the URL {_without_password(url).partition(mark)[0]!r} goes on with {mark!r}",
            hint="give it without query and fragment: the names of the repository's files are appended to it",
        )
    return url.rstrip("/")


class HttpTransport:
    """A repository at a URL; ``requests`` is how many are on their way at a time.

    ``tell``, if given, is called with a line for the user before a wait that somebody would wonder about.
    """

    def __init__(self, url: str, requests: int, tell: Callable[[str], object] | None = None) -> None:
        self._url = url
        self._shown = _without_password(url)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, CONNECTIONS)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._idle: list[pycurl.Curl] = []
        self._unmade = requests
        self._active: dict[pycurl.Curl, Fetch] = {}
        self._queue: deque[Fetch] = deque()
        self._later: list[tuple[float, int, Fetch]] = []
        self._tell = tell
        self._told_until = 0.0
        self._sequence = 0
        setting = {name: _number(name, default) for name, default in ENVIRONMENT.items()}
        self._low_speed_seconds = max(1, round(setting[LOW_SPEED_SECONDS]))
        self._retries = int(setting[RETRIES])
        self._retry_seconds = setting[RETRY_SECONDS]

    def start(self, fetch: Fetch) -> None:
        """Queue a fetch."""
        self._queue.append(fetch)

    def step(self) -> list[Fetch]:
        """Let curl work, give its idle handles something to do, and return the fetches that have ended."""
        now = monotonic() if self._later else 0.0
        while self._later and self._later[0][0] <= now:
            self._queue.appendleft(heappop(self._later)[2])
        self._fill()
        ended: list[Fetch] = []
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
        readers, writers, _ = self._multi.fdset()
        return readers, writers

    def timeout(self) -> float | None:
        """Return the earlier of curl's own timeout and the next repetition, in seconds; 0 while ``step`` has work."""
        if self._queue and (self._idle or self._unmade):
            return 0.0  # queued since the last step: curl does not know of it yet, and would never wake us
        milliseconds = self._multi.timeout()
        waits = [milliseconds / 1000] if milliseconds >= 0 else [1.0] if self._active else []
        if self._later:
            waits.append(max(0.0, self._later[0][0] - monotonic()))
        return min(waits, default=None)

    def where(self, path: str) -> str:
        """Return the URL of a file, without a password."""
        return f"{self._shown}/{path}"

    def _fill(self) -> None:
        while self._queue and (self._idle or self._unmade):
            handle = self._idle.pop() if self._idle else self._make()
            fetch = self._queue.popleft()
            fetch.begin()
            handle.setopt(pycurl.URL, f"{self._url}/{fetch.path}".encode())
            handle.setopt(pycurl.WRITEFUNCTION, fetch.take)
            self._active[handle] = fetch
            self._multi.add_handle(handle)

    def _make(self) -> pycurl.Curl:
        self._unmade -= 1
        handle = pycurl.Curl()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.FAILONERROR, 1),
            (pycurl.FOLLOWLOCATION, 1),
            (pycurl.MAXREDIRS, _MAX_REDIRECTS),
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.USERAGENT, f"composefs-ostree/{__version__}"),
            (pycurl.CONNECTTIMEOUT, _CONNECT_SECONDS),
            (pycurl.LOW_SPEED_LIMIT, _LOW_SPEED_BYTES),
            (pycurl.LOW_SPEED_TIME, self._low_speed_seconds),
        ):
            handle.setopt(option, value)
        if self._url.lower().startswith("https:"):
            # Wait for the first connection to tell whether it takes all requests (HTTP/2) before opening more.
            handle.setopt(pycurl.PIPEWAIT, 1)
            ca_file = os.environ.get("SSL_CERT_FILE") or next(filter(os.path.exists, _CA_FILES), None)
            if ca_file:
                handle.setopt(pycurl.CAINFO, ca_file)
            if ca_directory := os.environ.get("SSL_CERT_DIR"):
                handle.setopt(pycurl.CAPATH, ca_directory)
        return handle

    def _end(self, handle: pycurl.Curl, code: int | None, reason: str, ended: list[Fetch]) -> None:
        fetch = self._active.pop(handle)
        self._multi.remove_handle(handle)
        self._idle.append(handle)
        if fetch.error is None:  # else the fetch itself refused what came
            status = handle.getinfo(pycurl.RESPONSE_CODE)
            if code is None and status == 200:
                ended.append(fetch)
                return
            if self._is_passing(code, status) and fetch.attempts <= self._retries:
                self._repeat(fetch, self._error(fetch, code, status, reason))
                return
            fetch.absent = status in _ABSENT
            fetch.error = self._error(fetch, code, status, reason)
        ended.append(fetch)

    @staticmethod
    def _is_passing(code: int | None, status: int) -> bool:
        if code is None or code == pycurl.E_HTTP_RETURNED_ERROR:
            return status in _PASSING_STATUS or status >= 500
        return code in _PASSING_FAILURE

    def _repeat(self, fetch: Fetch, error: ExtError) -> None:
        # Up to a quarter more, so that the requests that failed together do not come again together.
        delay = self._retry_seconds * 2 ** (fetch.attempts - 1) * (1 + os.urandom(1)[0] / 1024)
        now = monotonic()
        self._sequence += 1
        heappush(self._later, (now + delay, self._sequence, fetch))
        # Where many requests fail together, the first speaks for those that wait no longer.
        if self._tell and delay >= _LONG_WAIT and now >= self._told_until:
            self._told_until = now + delay
            self._tell(f"{error.message}; trying again in {delay:.0f} s")

    def _error(self, fetch: Fetch, code: int | None, status: int, reason: str) -> ExtError:
        url = self.where(fetch.path)
        tried = f" ({fetch.attempts} attempts)" if fetch.attempts > 1 else ""
        if status in _ABSENT:
            return NotFoundError(f"{url}: not found (HTTP status {status})", subject=url)
        if code is None or code == pycurl.E_HTTP_RETURNED_ERROR:
            return NetworkError(
                f"{url}: HTTP status {status}{tried}",
                hint="check the URL" if status < 500 else "the server has a problem; try again later",
                subject=url,
                retryable=status >= 500,
            )
        return NetworkError(
            f"{url}: {reason.rstrip('.') or f'curl error {code}'}{tried}",
            hint="check the URL and the network and run the same command again: it goes on where it stopped",
            subject=url,
            retryable=code in _PASSING_FAILURE,
        )


def _number(name: str, default: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86400:
        raise UsageError(f"{name}={text!r} is not a number between 0 and 86400")
    return value


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
