"""HTTP as registries need it: streams of bytes, errors in one line, and an Authorization that stays with its host.

By ``http.client`` of the standard library: an image is some dozens of requests, so that what one costs does not matter,
but a pull that finds nothing new ends with its first answer, and libraries on top take longer to load than all the rest
of it.

Redirects are followed here: registries hand blobs out from other hosts, by URLs with a signature in them, and neither
may learn the other's secret.  For that reason URLs are shown without user, query and fragment.
"""

from __future__ import annotations

import io
import ssl
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection, InvalidURL
from select import POLLIN, poll
from time import monotonic
from urllib.parse import quote, urlencode, urljoin, urlsplit

from composefs_ext import environment
from composefs_ext.errors import NetworkError, TooLargeError
from composefs_oci import __version__
from composefs_oci.sources.closing import Closing
from composefs_oci.sources.registry.clientcert import alert_behind, certificate_problem
from composefs_oci.sources.registry.connecting import connect
from composefs_oci.sources.registry.failures import FAILURES, SlowError, failure
from composefs_oci.sources.registry.proxy import ProxyError, Tunnel, proxy_for
from composefs_oci.sources.registry.trust import show, trusting
from composefs_oci.sources.registry.urls import origin, parts_of, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any
    from urllib.parse import SplitResult

    from composefs_oci.sources.registry.proxy import Proxy
    from composefs_oci.sources.registry.trust import Trust

__all__ = [
    "ENVIRONMENT",
    "RETRIES",
    "RETRY_DELAY",
    "TIMEOUT",
    "Http",
    "Response",
    "UnreachedError",
    "setting",
]

RETRIES = "COMPOSEFS_OCI_RETRIES"
RETRY_DELAY = "COMPOSEFS_OCI_RETRY_DELAY"
TIMEOUT = "COMPOSEFS_OCI_TIMEOUT"
ENVIRONMENT = {RETRIES: 5.0, RETRY_DELAY: 0.5, TIMEOUT: 30.0}
"""Names of environment variables, and what holds without them: how often what may pass is tried again, the seconds
before the first time (they double for each further one), and the seconds after which a silent peer is gone."""

_CONNECT_SECONDS = 30.0
_PIECE = 1 << 16
_LOW_SPEED = 1000
_MAX_INTERIM = 10
_MAX_BESIDE = 1 << 20
_MOST_FOR_A_BYTE = 16
"""Bytes that one of the answer may take, beyond those that may be beside it: in a chunk of its own it takes six."""

_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_HEADERS = {"User-Agent": f"composefs-oci/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
_SAFE = "%/:=&?~#+!$,;'@()*[]"  # what stays as it is in a URL

_ANSWERED: set[tuple[str, str]] = set()
"""The origins that have answered: this process, or the one that it was forked from."""


def setting(name: str) -> float:
    """Return a setting from the environment; raise UsageError if it is none."""
    return environment.number(name, ENVIRONMENT[name])


class UnreachedError(NetworkError):
    """A host that cannot be connected to and has never answered: its name or port may be wrong."""


class _Paced(io.RawIOBase):
    """What a socket gives, be it body, headers, trailers or chunks' sizes; SlowError when next to nothing comes of it.

    That is raised when the peer sends less than 1000 bytes a second for as long as silence is borne; time between
    reads does not count, nor the time before the first byte.  It is raised too, however fast bytes come, when they are
    more than ``left``.  What is read of the body adds to ``left``, so that it bounds what comes beside the body: a head
    or trailers without an end, or chunks of a byte with a long extension each (RFC 9112, 7.1.1).
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._patience = _patience()
        self._has_begun = False
        self._seconds = 0.0
        self._bytes = 0
        self.left = _MAX_BESIDE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        start = monotonic()
        size = self._raw.readinto(buffer)
        self.left -= size or 0
        if self.left < 0:
            raise SlowError(f"{_MAX_BESIDE} bytes, and next to nothing of the answer in them")
        if not self._has_begun:
            self._has_begun = True
            return size
        self._seconds += monotonic() - start
        self._bytes += size or 0
        if self._seconds >= self._patience:
            if self._bytes < _LOW_SPEED * self._seconds:
                raise SlowError(f"less than {_LOW_SPEED} bytes a second for {self._seconds:.0f} seconds")
            self._seconds, self._bytes = 0.0, 0
        return size

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedResponse(HTTPResponse):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._paced = _Paced(self.fp.detach())
        self.fp = io.BufferedReader(self._paced)

    def read1(self, n: int = -1) -> bytes:
        """Return what a single read of the socket gives."""
        self._paced.left += n
        data = super().read1(n)
        self._paced.left = min(self._paced.left - n + _MOST_FOR_A_BYTE * len(data), _MAX_BESIDE)
        return data

    def begin(self) -> None:
        """Read the head of the answer, past those that come before it, as Early Hints (RFC 9110, 15.2)."""
        super().begin()
        for _ in range(_MAX_INTERIM):
            if not 101 < self.status < 200:
                break
            self.headers = None  # type: ignore[assignment]  # as before the first
            super().begin()


def _patience() -> float:
    """Return the seconds after which a silent peer is gone."""
    return max(1.0, setting(TIMEOUT))


class Response(Closing):
    """An answer whose body is still to be read: from ``url``, where redirects from ``asked`` led."""

    def __init__(
        self, url: str, response: HTTPResponse, connection: HTTPConnection, idle: list[HTTPConnection]
    ) -> None:
        """``idle`` is where the connection goes when it can be used again."""
        self.url = self.asked = url
        self.status = response.status
        self._response = response
        self._connection: HTTPConnection | None = connection
        self._idle = idle

    def header(self, name: str) -> str:
        """Return a header, "" if there is none; several of a name are one, with commas between them (RFC 9110, 5.3)."""
        return ", ".join(self._response.headers.get_all(name, ()))

    @property
    def length(self) -> int | None:
        """The bytes that the body is said to have, None if that is not said."""
        text = self.header("Content-Length")
        return int(text[:20]) if text.isascii() and text.isdigit() else None

    def read(self, size: int, /) -> bytes:
        """Return what a single read of the socket gives; none at the end, which may be too early.

        Raise NetworkError.
        """
        try:
            return self._response.read1(size)
        except FAILURES as error:
            raise failure(self.asked, error) from None

    def read_all(self, limit: int) -> bytes:
        """Return a small body; raise TooLargeError or NetworkError."""
        where = shown(self.asked)
        pieces, size = [], 0
        while data := self.read(_PIECE):
            size += len(data)
            if size > limit:
                raise TooLargeError(
                    f"{where} answers with more than {limit} bytes",
                    hint="check the name: a registry sends less",
                    subject=where,
                )
            pieces.append(data)
        if self.length not in (None, size):
            raise NetworkError.at(
                where,
                f"the answer ends after {size} of {self.length} bytes",
                hint="check the network and run the same command again",
                retryable=True,
            )
        return b"".join(pieces)

    def close(self) -> None:
        """Let go of the connection; one whose body was not read to its end is not used again."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        response = self._response
        is_whole = response.length == 0 or (response.length is None and response.isclosed())
        response.close()
        if is_whole and not response.will_close and response.status >= 200:  # else another answer comes
            self._idle.append(connection)
        else:
            connection.close()


class Http:
    """Connections, kept for the next request."""

    def __init__(self, trust: Trust, home: str) -> None:
        """``home`` is the registry's host, HOST[:PORT], the only one that sees the client's certificate."""
        self._trust = trust
        self._home = home.lower()
        self._seconds = _patience()
        self._idle: dict[tuple[str, str], list[HTTPConnection]] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def get(self, url: str, authorization: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
        """Return the answer to a request, at the end of its redirects, with the body still to be read.

        Raise NetworkError, which says whether it may pass.
        """
        asked, secret_for = url, origin(url)
        for _ in range(_MAX_REDIRECTS + 1):
            sent = dict(headers or {})
            if authorization and origin(url) == secret_for:
                sent["Authorization"] = authorization
            response = self._send("GET", url, sent)
            if response.status not in _REDIRECTS:
                response.asked = asked
                return response
            location = response.header("Location")
            response.close()
            url = self._redirected(url, location)
        raise NetworkError.at(shown(url), f"more than {_MAX_REDIRECTS} redirects", hint="the registry has a problem")

    def post(self, url: str, form: Mapping[str, str]) -> Response:
        """Send a form, and follow no redirect with it."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._send("POST", url, headers, urlencode(form).encode())

    def close(self) -> None:
        """Close all connections; a thread that is not waited for may be asking for more."""
        while self._idle:
            for connection in self._idle.popitem()[1]:
                connection.close()

    def _send(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> Response:
        headers = {**_HEADERS, **headers}
        connection = None
        try:
            parts = urlsplit(url)
            idle = self._idle.setdefault(origin(url), [])
            proxy = proxy_for(parts)
            connection = self._reused(idle) or self._connected(parts, proxy)
            target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
            if proxy is not None:
                headers["Host"] = parts.netloc
                if parts.scheme == "http":
                    target = f"http://{parts.netloc}{target}"
                    headers |= proxy.headers
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            _ANSWERED.add(origin(url))
            return Response(url, response, connection, idle)
        except FAILURES as error:
            reason: Exception = error
            if connection is not None:
                reason = alert_behind(error, connection)
                connection.close()
            told = certificate_problem(shown(url), reason, is_given=self.is_certified(url)) or failure(url, reason)
            if connection is None and origin(url) not in _ANSWERED:
                told = UnreachedError(told.message, hint=told.hint, subject=told.subject, retryable=told.retryable)
            raise told from None

    def is_certified(self, url: str) -> bool:
        """Tell whether the host of a URL is shown a client certificate."""
        return self._trust.client is not None and parts_of(url).netloc.lower() == self._home

    def _reused(self, idle: list[HTTPConnection]) -> HTTPConnection | None:
        """Return a connection that the peer has not closed meanwhile."""
        while idle:
            connection = idle.pop()
            readable = poll()
            readable.register(connection.sock, POLLIN)
            if not readable.poll(0):
                return connection
            connection.close()
        return None

    def _connected(self, parts: SplitResult, proxy: Proxy | None) -> HTTPConnection:
        """Return a new connection."""
        host, port = parts.hostname or "", _port(parts)
        place = (host, port) if proxy is None else (proxy.host, proxy.port)
        if parts.scheme == "https":
            context = self._context(is_home=parts.netloc.lower() == self._home)
            if proxy is None:
                connection: HTTPConnection = HTTPSConnection(*place, timeout=_CONNECT_SECONDS, context=context)
            else:
                connection = Tunnel(proxy, (host, port), context, _CONNECT_SECONDS)
        else:
            connection = HTTPConnection(*place, timeout=_CONNECT_SECONDS)
        connection.response_class = _PacedResponse
        connection._create_connection = connect  # type: ignore[attr-defined]
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            if proxy is None or isinstance(error, ssl.SSLError):
                raise
            raise ProxyError(proxy, error) from error
        connection.sock.settimeout(self._seconds)
        return connection

    def _context(self, *, is_home: bool) -> ssl.SSLContext:
        """Return how to speak TLS with the registry, or with another host."""
        context = self._contexts.get(is_home)
        if context is None:
            if self._trust.verify:
                context = trusting(self._trust)
            else:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if is_home and self._trust.client is not None:
                show(context, *self._trust.client)
            self._contexts[is_home] = context
        return context

    def _redirected(self, url: str, location: str) -> str:
        """Return where a redirect leads; raise NetworkError where it is not followed."""
        try:
            target = urljoin(url, quote(location.encode("latin-1", "replace"), safe=_SAFE))
            parts = urlsplit(target)
            _port(parts)
        except (ValueError, InvalidURL):
            target, parts = location, urlsplit("")
        schemes = ("https",) if self._trust.verify else ("https", "http")
        if parts.scheme not in schemes or not parts.hostname or parts.username is not None:
            raise NetworkError(
                f"{shown(url)} redirects to {shown(target)[:300]!r}, which is not followed",
                hint="the registry's answer leaves TLS or the web, or has a login in it",
                subject=shown(url),
            )
        return target


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise InvalidURL("a port that is none") from None
