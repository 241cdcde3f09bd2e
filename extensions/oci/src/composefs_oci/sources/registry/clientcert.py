"""Registries that want a client certificate: how they say so, and what the user is told.

Some say it in the handshake, by an alert (RFC 8446, section 6.2), others in a page of status 400.  With TLS 1.3 the
alert follows a handshake that has succeeded, so that it may be there to be read when writing the request fails already.
"""

from __future__ import annotations

import ssl
from http.client import HTTPConnection

from composefs_ext.errors import NetworkError

__all__ = ["alert_behind", "certificate_error", "certificate_problem", "is_told_by"]

_ALERT = "_ALERT_"
_WANTED = "CERTIFICATE_REQUIRED"
_REFUSED = frozenset(
    {
        "ACCESS_DENIED",
        "BAD_CERTIFICATE",
        "CERTIFICATE_EXPIRED",
        "CERTIFICATE_REVOKED",
        "CERTIFICATE_UNKNOWN",
        "DECRYPT_ERROR",
        "UNKNOWN_CA",
        "UNSUPPORTED_CERTIFICATE",
    }
)
"""What OpenSSL calls the alerts about the certificate of who gets them."""

_PAGE = b"SSL certificate"
_PAGE_BYTES = 1024


def alert_behind(error: Exception, connection: HTTPConnection) -> Exception:
    """Return the alert that came before the connection broke, if one did, else the error that is there already."""
    is_told = isinstance(error, ssl.SSLError) and error.reason
    if is_told or not isinstance(error, OSError) or not isinstance(connection.sock, ssl.SSLSocket):
        return error
    try:
        connection.sock.settimeout(1)
        connection.sock.recv(1)
    except ssl.SSLError as said:
        return said if _ALERT in (said.reason or "") else error
    except OSError:
        pass
    return error


def certificate_problem(where: str, error: Exception, *, is_given: bool) -> NetworkError | None:
    """Return the error of a connection that the registry ended for want of a certificate that it takes, else None.

    ``is_given`` tells that it was shown one.
    """
    alert = (error.reason or "").partition(_ALERT)[2] if isinstance(error, ssl.SSLError) else ""
    if alert == _WANTED or (alert in _REFUSED and is_given):
        return certificate_error(where, alert, is_given=is_given)
    return None


def is_told_by(page: bytes) -> bool:
    """Tell whether a page of status 400 is that of nginx about a client certificate, by its title."""
    return _PAGE in page[:_PAGE_BYTES]


def certificate_error(where: str, alert: str = "", *, is_given: bool) -> NetworkError:
    """Return the error for a registry that wants a certificate, or another than it was given."""
    if not is_given:
        return NetworkError.at(
            where,
            "the registry wants a client certificate",
            hint="NAME.cert and NAME.key, in PEM, go into /etc/containers/certs.d/HOST:PORT or a directory that"
            " --cert-dir names",
        )
    said = f": {alert.replace('_', ' ').lower()}" if alert else ""
    return NetworkError.at(
        where,
        f"the registry does not take the client certificate{said}",
        hint="the *.cert in /etc/containers/certs.d/HOST:PORT or the directory that --cert-dir names has to be valid"
        " and signed by an authority of the registry's, with those between in the same file",
    )
