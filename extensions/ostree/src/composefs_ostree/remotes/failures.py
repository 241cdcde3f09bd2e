"""What a request that failed is told as: the server's statuses and libcurl's errors in words, with a remedy for each.

``where`` is the file's URL without a password, ``tried`` how often it was asked for.
"""

from __future__ import annotations

from composefs_ext.errors import NetworkError
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.urls import PROXY_FORM

__all__ = ["TimedOutError", "proxy_refuses", "proxy_unusable", "refused_status", "transfer_failed"]

_UNAUTHORIZED = 401
_FORBIDDEN = 403

_STATUS_HINTS = {
    **dict.fromkeys(
        (301, 302, 303, 307, 308),
        "the server redirects and does not say where, or to where headers of a file are not sent: give the URL itself",
    ),
    _UNAUTHORIZED: "the server wants to know who you are: use a netrc file, or a remote with http-basic-auth-file or "
    "http-bearer-token-file",
    _FORBIDDEN: "see the remote's http-basic-auth-file, http-bearer-token-file or tls-client-cert-path, or your netrc "
    "file; some servers say so of what is not there: check the URL too",
    407: "the proxy wants to know who you are: give the login in https_proxy, http_proxy or all_proxy, "
    "http://USER:PASSWORD@HOST:PORT",
    429: "the server has had too many requests; try again later",
}
_PROXY_HINT = "see the remote's proxy setting, or https_proxy, http_proxy, all_proxy and no_proxy in the environment"
_OVER_PROXY = "over proxy"
"""What libcurl writes of a connection to a proxy that failed."""

_FAILURE_HINTS = {
    pycurl.E_COULDNT_RESOLVE_PROXY: _PROXY_HINT,
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


def refused_status(where: str, status: int, tried: int, after: int) -> NetworkError:
    """Make the error for an answer that is none: a status of 400 or more, or one that nobody asked for.

    ``after`` are the seconds that the server wants to be left alone for, if they are too many to wait.
    """
    said = "access refused (HTTP status {})" if status in (_UNAUTHORIZED, _FORBIDDEN) else "HTTP status {}"
    other = "check the URL" if status < 500 else "the server has a problem; try again later"
    return NetworkError(
        f"{where}: {said.format(status)}{_attempts(tried)}"
        + (f", and the server wants us to wait for {after} seconds" if after else ""),
        hint=_STATUS_HINTS.get(status, other),
        subject=where,
        retryable=status >= 500,
    )


def transfer_failed(where: str, code: int, reason: str, tried: int, *, retryable: bool) -> NetworkError:
    """Make the error for what libcurl could not do; ``reason`` are its own words."""
    kind = TimedOutError if code == pycurl.E_OPERATION_TIMEDOUT else NetworkError
    return kind(
        f"{where}: {reason.rstrip('.') or _REASONS.get(code, f'curl error {code}')}{_attempts(tried)}",
        hint=_PROXY_HINT if _OVER_PROXY in reason else _FAILURE_HINTS.get(code, _ANY_FAILURE_HINT),
        subject=where,
        retryable=retryable,
    )


def proxy_refuses(where: str, status: int) -> NetworkError:
    """Make the error for a proxy that does not let us through to the server."""
    return NetworkError(
        f"{where}: the proxy refuses the connection (HTTP status {status})",
        hint=_STATUS_HINTS.get(status, _PROXY_HINT),
        subject=where,
    )


def proxy_unusable(where: str) -> NetworkError:
    """Make the error for a proxy that libcurl does not take."""
    return NetworkError(
        f"{where}: the URL of the proxy cannot be used",
        hint=f"{PROXY_FORM}: see the remote's proxy setting, or http_proxy, https_proxy and all_proxy",
        subject=where,
    )


def _attempts(tried: int) -> str:
    return f" ({tried} attempts)" if tried > 1 else ""
