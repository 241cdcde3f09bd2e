"""Transfers that failed: which may be tried again, and what is told of the others, with a remedy for each.

What may pass are timeouts, names that do not resolve, connections refused or closed, bodies cut short, and the statuses
408, 429 and 5xx but 511; a server may say when to come back (Retry-After).  403, 404 and 410 mean that there is no such
file: object stores answer 403 for that, so only of a file that cannot be done without is it told as it is.
"""

from __future__ import annotations

from composefs_ext.errors import ExtError, NetworkError, NotFoundError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.urls import PROXY_FORM, without_password

__all__ = ["ANY_ALERT", "Failure", "TimedOutError"]

ANY_ALERT = "fatal alert"
"""All that libcurl with GnuTLS tells of an alert behind the handshake: a certificate is wanted, or it may pass."""

_LONGEST_RETRY_AFTER = 300
"""Seconds for which a server may send us away."""

_RETRY_AFTER = getattr(pycurl, "RETRY_AFTER", None)
"""What asks for those seconds; older pycurl, such as Debian 13's 7.45.6, cannot."""

_LONGEST_PLACE = len("https://") + 253 + len(":65535")  # 253: the longest name of a host
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_PROXY_LOGIN_WANTED = 407
_ABSENT = frozenset({_FORBIDDEN, 404, 410})
_LOGIN_WANTED = 511  # RFC 6585, section 6: not the server says it, but the network before it
_TOO_MANY = 429
_PASSING_STATUS = frozenset({408, _TOO_MANY, *range(500, 600)} - {_LOGIN_WANTED})
_LIMITED = frozenset({_TOO_MANY, 503})
"""What servers that limit the rate of requests answer; nginx says 503 unless it is told otherwise."""
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

_STATUS_HINTS = {
    **dict.fromkeys(
        (301, 302, 303, 307, 308),
        "the server redirects and does not say where, or to where headers of a file are not sent: give the URL itself",
    ),
    _UNAUTHORIZED: "the server wants to know who you are: use a netrc file, or a remote with http-basic-auth-file or "
    "http-bearer-token-file",
    _FORBIDDEN: "see the remote's http-basic-auth-file, http-bearer-token-file or tls-client-cert-path, or your netrc "
    "file; some servers say so of what is not there: check the URL too",
    _PROXY_LOGIN_WANTED: "the proxy wants to know who you are: give the login in https_proxy, http_proxy or all_proxy, "
    "http://USER:PASSWORD@HOST:PORT",
    _TOO_MANY: "the server has had too many requests; try again later",
    _LOGIN_WANTED: "the network wants a login: open any web page in a browser",
}
_ELSEWHERE = "no login of a remote's file goes to where a server redirects: give that URL, or use a netrc file"
_PROXY_HINT = "see the remote's proxy setting, or https_proxy, http_proxy, all_proxy and no_proxy in the environment"
_OVER_PROXY = "over proxy"
_UNUSABLE_PROXY = "Unsupported proxy"
"""What libcurl writes of a connection to a proxy that failed, and how it begins to say that it does not take the URL of
one, which it shows behind these words."""

_SOCKS_FAILED = 97  # CURLE_PROXY, which pycurl has no name for

_FAILURE_HINTS = {
    **dict.fromkeys((pycurl.E_COULDNT_RESOLVE_PROXY, _SOCKS_FAILED), _PROXY_HINT),
    pycurl.E_TOO_MANY_REDIRECTS: "the server redirects in circles: check the URL, or tell who runs it",
    pycurl.E_UNSUPPORTED_PROTOCOL: "what answers there does not speak HTTP, or redirects to where nobody follows: that "
    "is done to http and https, and from https to https alone; check the URL, or tell who runs the server",
    pycurl.E_SSL_CERTPROBLEM: "check the remote's tls-client-cert-path and tls-client-key-path",
    pycurl.E_BAD_FUNCTION_ARGUMENT: "tls-client-key-path of the remote has to name the key of the certificate that "
    "tls-client-cert-path names, in PEM and without a passphrase",
    pycurl.E_PEER_FAILED_VERIFICATION: "the URL has to have a name that is in the server's certificate, and this "
    "machine the right time; an authority of your own is named by tls-ca-path of the remote",
    pycurl.E_SSL_CACERT_BADFILE: "tls-ca-path of the remote, else SSL_CERT_FILE, has to name certificates in PEM, "
    "by an absolute path",
    pycurl.E_SSL_CONNECT_ERROR: "check scheme and port of the URL: what answers there does not speak TLS, or none that "
    "this machine takes, or it wants a client certificate (the remote's tls-client-cert-path and tls-client-key-path)",
}
_REASONS = {100: "a line in the header of its answer is too long"}
"""What libcurl has no words for: CURLE_TOO_LARGE, which pycurl has no name for."""

_ANY_FAILURE_HINT = "check the URL and the network and run the same command again: it goes on where it stopped"


class TimedOutError(NetworkError):
    """A transfer took longer than it may, or brought nothing for too long."""


class Failure(NamedTuple):
    """A transfer that did not bring its file.

    ``where`` is the file's URL without a password, ``behind`` scheme and host that redirects led to, or nothing if that
    is where they began; ``code`` is libcurl's error, in its words ``reason``, or None if an answer came, and ``status``
    that of the answer or 0.  A proxy answered ``proxy_status`` instead of connecting us.
    Unless it ``is_connected``, more tries may be in vain: the name may be wrong, or a certificate wanted.  The server
    wants to be left alone for ``retry_after`` seconds.
    """

    where: str
    behind: str
    code: int | None
    reason: str
    status: int
    proxy_status: int
    is_connected: bool
    seconds: float
    retry_after: int

    @classmethod
    def of(cls, handle: pycurl.Curl, where: str, code: int | None, reason: str) -> Failure:
        """Return what a handle tells of its transfer, which ended so."""
        status = handle.getinfo(pycurl.RESPONSE_CODE)
        proxy_status = 0 if status else handle.getinfo(pycurl.HTTP_CONNECTCODE)
        last = ""
        if handle.getinfo(pycurl.REDIRECT_COUNT):  # of a URL that curl rejects it has none, and raises an error
            last = _place(handle.getinfo_raw(pycurl.EFFECTIVE_URL).decode("utf-8", "replace"))
        return cls(
            where,
            "" if last.lower() == _place(where).lower() else last,
            code,
            reason,
            status,
            proxy_status=proxy_status,
            is_connected=handle.getinfo(pycurl.CONNECT_TIME) > 0
            and proxy_status < _BAD_REQUEST
            and ANY_ALERT not in reason,
            seconds=handle.getinfo(pycurl.TOTAL_TIME),
            retry_after=handle.getinfo(_RETRY_AFTER) if _RETRY_AFTER else 0,
        )

    def may_pass(self, longest: int, *, is_known: bool) -> bool:
        """Tell whether another try may succeed; ``longest`` is how many seconds each may take.

        A host that ``is_known`` has answered before: if now it does not get to speak TLS, or a proxy of SOCKS not to
        it, it is being started anew.  Behind a redirect it is another host that fails, of which nothing is known.
        """
        if self.retry_after > _LONGEST_RETRY_AFTER or self._has_unusable_proxy:
            return False
        if self.proxy_status >= _BAD_REQUEST:
            return self.proxy_status in _PASSING_STATUS
        if self.code is None:
            return self.status in _PASSING_STATUS
        if self.code in (pycurl.E_SSL_CONNECT_ERROR, _SOCKS_FAILED):
            return is_known and not self.status
        return self.code in _PASSING_FAILURE and not (
            self.code == pycurl.E_OPERATION_TIMEDOUT and self.seconds >= longest
        )

    def error(self, *, is_needed: bool, tried: int = 1) -> ExtError:
        """Return the error of a file that was asked for ``tried`` times; NotFoundError if it is not there.

        One that ``is_needed`` is not called absent if the server refuses it.
        """
        where, status = self.where, self.status
        behind = f"redirected to {self.behind}: " if self.behind else ""
        attempts = f" ({tried} attempts)" if tried > 1 else ""
        if self._has_unusable_proxy:
            return NetworkError.at(
                where,
                "the URL of the proxy cannot be used",
                hint=f"{PROXY_FORM}: see the remote's proxy setting, or http_proxy, https_proxy and all_proxy",
            )
        if self.proxy_status >= _BAD_REQUEST:
            # Some call it 401 (tinyproxy).
            wants_login = self.proxy_status in (_UNAUTHORIZED, _PROXY_LOGIN_WANTED)
            return NetworkError.at(
                where,
                f"{behind}the proxy refuses the connection (HTTP status {self.proxy_status}){attempts}",
                hint=_STATUS_HINTS[_PROXY_LOGIN_WANTED] if wants_login else _PROXY_HINT,
                retryable=self.proxy_status in _PASSING_STATUS,
            )
        if self.code is not None:
            kind = TimedOutError if self.code == pycurl.E_OPERATION_TIMEDOUT else NetworkError
            said = self.reason.rstrip(".") or _REASONS.get(self.code, f"curl error {self.code}")
            return kind.at(
                where,
                f"{behind}{said}{attempts}",
                hint=_PROXY_HINT if _OVER_PROXY in self.reason else _FAILURE_HINTS.get(self.code, _ANY_FAILURE_HINT),
                retryable=self.code in _PASSING_FAILURE,
            )
        if status == _FORBIDDEN and not is_needed:
            return NotFoundError.at(
                where,
                f"not there, or access refused (HTTP status {status})",
                hint="check that the server may read the file; else the source is incomplete or being changed",
            )
        if status in _ABSENT and status != _FORBIDDEN:
            return NotFoundError.at(where, "not found")
        said = "access refused (HTTP status {})" if status in (_UNAUTHORIZED, _FORBIDDEN) else "HTTP status {}"
        is_long = self.retry_after > _LONGEST_RETRY_AFTER
        wait = f", and the server wants us to wait for {self.retry_after} seconds" if is_long else ""
        other = "check the URL" if status < 500 else "the server has a problem; try again later"
        more = ", or more often: --network-retries=N" if status in _LIMITED and not is_long else ""
        return NetworkError.at(
            where,
            f"{behind}{said.format(status)}{attempts}{wait}",
            hint=_ELSEWHERE if behind and status == _UNAUTHORIZED else _STATUS_HINTS.get(status, other) + more,
            retryable=status in _PASSING_STATUS,
        )

    @property
    def _has_unusable_proxy(self) -> bool:
        return self.reason.startswith(_UNUSABLE_PROXY)


def _place(url: str) -> str:
    """Return scheme, host and port of a URL; no more than they may have, as a server may name any."""
    return "/".join(without_password(url).split("/", 3)[:3])[:_LONGEST_PLACE]
