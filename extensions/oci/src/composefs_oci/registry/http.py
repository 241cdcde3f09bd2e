"""HTTP as registries need it: streams of bytes, errors in one line, and an Authorization that stays with its host.

Redirects are followed here and not by ``requests``: registries hand blobs out from other hosts, by URLs with a
signature in them, and neither may learn the other's secret.  For that reason URLs are shown without user, query and
fragment.
"""

from __future__ import annotations

import os
import socket
import ssl
from urllib.parse import urljoin, urlsplit

import requests
import requests.adapters
import requests.auth
import urllib3

from composefs_ext import environment
from composefs_ext.errors import ExtError, NetworkError
from composefs_oci import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from composefs_oci.registry.trust import Trust

__all__ = [
    "ENVIRONMENT",
    "FAILURES",
    "RETRIES",
    "RETRY_DELAY",
    "TIMEOUT",
    "Http",
    "failure",
    "number",
    "origin",
    "shown",
]

RETRIES = "COMPOSEFS_OCI_RETRIES"
RETRY_DELAY = "COMPOSEFS_OCI_RETRY_DELAY"
TIMEOUT = "COMPOSEFS_OCI_TIMEOUT"
ENVIRONMENT = {RETRIES: 5.0, RETRY_DELAY: 0.5, TIMEOUT: 30.0}
"""Names of environment variables, and what holds without them: how often what may pass is tried again, the seconds
before the first time (they double for each further one), and the seconds after which a silent peer is gone."""

_CONNECT_SECONDS = 30.0
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What reading or connecting raises."""


def number(name: str) -> float:
    """Return a setting from the environment; raise UsageError if it is none."""
    return environment.number(name, ENVIRONMENT[name])


def shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def origin(url: str) -> tuple[str, str]:
    """Return the scheme and the host with its port, which a secret may not leave."""
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


class _Authorization(requests.auth.AuthBase):
    """Puts the header in; that there is one keeps ``requests`` from looking for passwords in ~/.netrc."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._value:
            request.headers["Authorization"] = self._value
        return request


class Http:
    """Connections, kept for the next request."""

    def __init__(self, trust: Trust, home: str) -> None:
        """``home`` is the registry's host, HOST[:PORT], the only one that sees the client's certificate."""
        self._trust = trust
        self._home = home.lower()
        self._timeout = (_CONNECT_SECONDS, max(1.0, number(TIMEOUT)))
        self._session = requests.Session()
        self._session.headers["User-Agent"] = f"composefs-oci/{__version__}"
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.mount("http://", requests.adapters.HTTPAdapter(max_retries=0))
        self._session.mount("https://", requests.adapters.HTTPAdapter(max_retries=0))
        if trust.verify is False:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user asked for it

    def get(
        self, url: str, authorization: str | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Return the answer to a request, at the end of its redirects, with the body still to be read.

        Raise NetworkError, which says whether it may pass.
        """
        secret_for = origin(url)
        for _ in range(_MAX_REDIRECTS + 1):
            response = self._send("GET", url, authorization if origin(url) == secret_for else None, headers, None)
            if response.status_code not in _REDIRECTS:
                return response
            target = urljoin(url, response.headers.get("Location", ""))
            response.close()
            self._check_redirect(url, target)
            url = target
        raise NetworkError(
            f"{shown(url)}: more than {_MAX_REDIRECTS} redirects", hint="the registry has a problem", subject=shown(url)
        )

    def post(self, url: str, form: Mapping[str, str]) -> requests.Response:
        """Send a form, and follow no redirect with it."""
        return self._send("POST", url, None, None, form)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def _send(
        self,
        method: str,
        url: str,
        authorization: str | None,
        headers: Mapping[str, str] | None,
        form: Mapping[str, str] | None,
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                url,
                headers=dict(headers or {}),
                data=form,
                auth=_Authorization(authorization),
                timeout=self._timeout,
                stream=True,
                allow_redirects=False,
                verify=self._trust.verify,
                cert=self._trust.client if urlsplit(url).netloc.lower() == self._home else None,
            )
        except FAILURES as error:
            raise failure(url, error) from None

    def _check_redirect(self, url: str, target: str) -> None:
        scheme = urlsplit(target).scheme
        is_less_safe = scheme == "http" and urlsplit(url).scheme == "https" and self._trust.verify is not False
        if scheme not in ("http", "https") or is_less_safe or not urlsplit(target).hostname:
            raise NetworkError(
                f"{shown(url)} redirects to {shown(target)[:300]!r}, which is not followed",
                hint="the registry's answer leaves TLS or the web",
                subject=shown(url),
            )


def failure(url: str, error: Exception) -> ExtError:
    """Return the error for a request or a body that failed, without the exception's own text, which has whole URLs."""
    where = shown(url)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NetworkError(
                f"{where}: the certificate is not trusted: {cause.verify_message}",
                hint="put the authority's certificate into /etc/containers/certs.d/HOST:PORT/ca.crt or name its"
                " directory with --cert-dir; --tls-verify=false trusts anybody",
                subject=where,
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            return NetworkError(
                f"{where}: the registry does not speak TLS",
                hint="if it is meant to be like that: --tls-verify=false",
                subject=where,
            )
    for cause in _causes(error):
        if isinstance(cause, requests.exceptions.ProxyError | urllib3.exceptions.ProxyError):
            return _passing(where, "the proxy failed")
        if isinstance(cause, socket.gaierror):
            return _passing(where, "the host's name is not known")
        if isinstance(cause, ssl.SSLError):
            return _passing(where, f"TLS failed: {cause.reason or 'cut off'}")
        if isinstance(cause, OSError) and not isinstance(cause, requests.RequestException) and cause.errno:
            return _passing(where, os.strerror(cause.errno))
        if isinstance(cause, urllib3.exceptions.IncompleteRead) and cause.expected is not None:
            return _passing(where, f"the connection was closed {cause.expected} bytes before the end")
    if any(isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError) for cause in _causes(error)):
        return _passing(where, "no answer in time")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | UnicodeError):
        return NetworkError(f"{where}: not a URL that can be asked", subject=where)
    return _passing(where, "the connection broke")


def _passing(where: str, reason: str) -> NetworkError:
    return NetworkError(
        f"{where}: {reason}",
        hint="check the name and the network and run the same command again",
        subject=where,
        retryable=True,
    )


def _causes(error: BaseException) -> list[BaseException]:
    """Return an exception and all that is wrapped in it: requests and urllib3 put causes into arguments."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in found:
            found.append(each)
            waiting += [*each.args, each.__cause__, each.__context__, getattr(each, "reason", None)]
    return found
