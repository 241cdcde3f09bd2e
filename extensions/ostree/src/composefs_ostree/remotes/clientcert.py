"""Servers that want a client certificate: how they say so, and what the user is told.

Some say it in the handshake, by an alert (RFC 8446, section 6.2), others in a page of status 400.  With TLS 1.3 the
alert follows a handshake that has succeeded, and is lost where the server closes the connection while the request is
being sent.  Whether the server had asked for a certificate is never lost; libcurl tells it those who listen.
"""

from __future__ import annotations

import re

from composefs_ext.errors import NetworkError
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.failures import ANY_ALERT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.remotes.curl import CurlOptions
    from composefs_ostree.remotes.failures import Failure

__all__ = ["Handshake", "certificate_error"]

_ALERT = re.compile(r"alert ([a-z ]+)")
_WANTED = "certificate required"
_REFUSED = frozenset(
    {
        "access denied",
        "bad certificate",
        "certificate expired",
        "certificate revoked",
        "certificate unknown",
        "decrypt error",
        "unknown ca",
        "unsupported certificate",
    }
)
"""Alerts, in OpenSSL's words, about the certificate of who gets them."""

_BAD_REQUEST = 400
_PAGE = b"SSL certificate"
_PAGE_BYTES = 1024
"""nginx answers with this status, and these words in the page's title."""

_CUT_OFF = frozenset({pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING})


class Handshake:
    """What libcurl tells of a connection that it makes; ``options`` have it tell."""

    def __init__(self) -> None:
        self.asks = False
        self.options: CurlOptions = ((pycurl.VERBOSE, 1), (pycurl.DEBUGFUNCTION, self._take))

    def _take(self, kind: int, text: bytes) -> None:
        if kind == pycurl.INFOTYPE_TEXT and b"Request CERT" in text:
            self.asks = True


def certificate_error(
    failure: Failure, *, is_given: bool, page: bytes, has_asked: bool, is_last: bool
) -> NetworkError | None:
    """Return the error of a request over TLS that failed for want of a certificate that the server takes, else None.

    ``is_given`` tells that it was shown one; ``page`` is what the server answered, if it did, and ``has_asked`` that it
    asked for a certificate, so that this is why it has closed the connection.  An alert that tells nothing is taken for
    that when the try ``is_last``.
    """
    where = failure.where
    alert = match[1].strip() if (match := _ALERT.search(failure.reason)) else ""
    by_page = failure.status == _BAD_REQUEST and _PAGE in page[:_PAGE_BYTES]
    has_asked = has_asked or (is_last and ANY_ALERT in failure.reason)
    cut_off = failure.code in _CUT_OFF and not failure.status and has_asked
    if not (alert == _WANTED or (alert in _REFUSED and is_given) or by_page or cut_off):
        return None
    if not is_given:
        return NetworkError.at(
            where,
            "the server wants a client certificate",
            hint="give the remote one, in PEM: cfsctl ostree remote add --force NAME URL "
            "--set=tls-client-cert-path=FILE --set=tls-client-key-path=FILE",
        )
    return NetworkError(
        f"{where}: the server does not take the client certificate" + (f": {alert}" if alert else ""),
        hint="tls-client-cert-path of the remote has to name one that is valid and that the server's authorities have "
        "signed, with those between in the same file; where the server redirects to another one, give that one's URL, "
        "as libcurl may show it to no other",
        subject=where,
    )
