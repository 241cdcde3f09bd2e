"""What keeps a registry from being talked to, as errors: what it was in one line, the remedy, whether it may pass."""

from __future__ import annotations

import os
import socket
import ssl
from http.client import HTTPException, InvalidURL

from composefs_ext.errors import ExtError, NetworkError
from composefs_oci.sources.registry.proxy import ProxyError
from composefs_oci.sources.registry.urls import shown

__all__ = ["FAILURES", "SlowError", "failure"]

FAILURES = (HTTPException, OSError, UnicodeError)
"""What reading or connecting raises."""


class SlowError(TimeoutError):
    """A peer that sends next to nothing."""


def failure(url: str, error: Exception) -> ExtError:
    """Return the error for a request or a body that failed, without the exception's own text, which has whole URLs."""
    where = shown(url)
    match error:
        case ssl.SSLCertVerificationError():
            return NetworkError.at(
                where,
                f"the certificate is not trusted: {error.verify_message.rstrip('.')}",
                hint="the registry's name has to be in it, and this machine's time right; an authority of your own"
                " goes into /etc/containers/certs.d/HOST:PORT/ca.crt or a directory that --cert-dir names;"
                " --tls-verify=false trusts anybody",
            )
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "HTTP_REQUEST"):
            return NetworkError.at(
                where, "the registry does not speak TLS", hint="if it is meant to be like that: --tls-verify=false"
            )
        case ssl.SSLError() if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or not error.reason:
            return _passing(where, "TLS was cut off")
        case ssl.SSLError():
            return NetworkError.at(
                where,
                f"TLS failed: {error.reason.replace('_', ' ').lower()}",
                hint="the registry speaks no TLS that this machine takes, or wants a client certificate: NAME.cert and"
                " NAME.key in /etc/containers/certs.d/HOST:PORT or a directory that --cert-dir names",
            )
        case SlowError():
            return _passing(where, str(error), hint="try again later")
        case ProxyError():
            return error.told(where)
        case socket.gaierror():
            return _passing(where, "the host's name is not known")
        case OSError() if error.errno:
            return _passing(where, os.strerror(error.errno))
        case TimeoutError():
            return _passing(where, "no answer in time")
        case InvalidURL() | UnicodeError():
            return NetworkError.at(where, "not a URL that can be asked")
    return _passing(where, "the connection broke")


def _passing(
    where: str, reason: str, hint: str = "check the name and the network and run the same command again"
) -> NetworkError:
    return NetworkError.at(where, reason, hint=hint, retryable=True)
