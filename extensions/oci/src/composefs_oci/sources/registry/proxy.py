"""The proxy that the environment names for a URL: http_proxy, https_proxy, all_proxy, and no_proxy for hosts without.

A :class:`Tunnel` is TLS through it.  no_proxy may have addresses too, and those of networks, as 10.0.0.0/8.  What is on
this machine is asked without a proxy, as skopeo, podman and docker do.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from http.client import HTTPConnection
from urllib.parse import SplitResult, unquote, urlsplit

from composefs_ext.errors import NetworkError, UnsupportedError
from composefs_ext.tuples import NamedTuple

__all__ = ["LOGIN_WANTED", "NETWORK_LOGIN", "Proxy", "ProxyError", "Tunnel", "proxy_for", "wants_login"]

LOGIN_WANTED = 407
"""The status of a proxy that wants a login."""
NETWORK_LOGIN = 511
"""The status of a network that wants a login, whoever is asked (RFC 6585, section 6)."""

_PORT = 80
_REFUSAL = re.compile(r"Tunnel connection failed: ([0-9]{3})")
_VARIABLES = "see https_proxy, http_proxy, all_proxy and no_proxy in the environment"


class Proxy(NamedTuple):
    """Where it is, and the headers for it alone."""

    host: str
    port: int
    headers: dict[str, str]


class ProxyError(OSError):
    """The proxy cannot be reached, or does not let us through: then ``status`` is what it answers."""

    def __init__(self, proxy: Proxy, error: OSError) -> None:
        super().__init__()
        self._place = f"{proxy.host}:{proxy.port}"
        refusal = _REFUSAL.search(str(error))  # http.client tells it in this way only
        self.status = int(refusal[1]) if refusal else None
        if isinstance(error, socket.gaierror):
            self._reason = "its name is not known"
        else:
            self._reason = os.strerror(error.errno) if error.errno else "no answer, or not that of a proxy"

    def told(self, where: str) -> NetworkError:
        """Return the error for the user."""
        if self.status in (LOGIN_WANTED, 401):  # which tinyproxy says
            return wants_login(where, self.status)
        if self.status is not None:
            return NetworkError.at(
                where,
                f"the proxy {self._place} refuses the connection (HTTP status {self.status})",
                hint=_VARIABLES,
                retryable=self.status >= 500 and self.status != NETWORK_LOGIN,
            )
        return NetworkError.at(
            where, f"the proxy {self._place} cannot be used: {self._reason}", hint=_VARIABLES, retryable=True
        )


def wants_login(where: str, status: int = LOGIN_WANTED) -> NetworkError:
    """Return the error for a proxy that wants a login, and says so by a status."""
    return NetworkError.at(
        where,
        f"the proxy wants to know who you are, or does not know you (HTTP status {status})",
        hint="give the login in https_proxy, http_proxy or all_proxy: http://USER:PASSWORD@HOST:PORT",
    )


class Tunnel(HTTPConnection):
    """TLS to a host and port, through a proxy.

    An IPv6 address has brackets in CONNECT, which not every Python puts there by itself, and none in a certificate.
    """

    def __init__(self, proxy: Proxy, place: tuple[str, int], context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(proxy.host, proxy.port, timeout=timeout)
        self._name, port = place
        self._tls = context
        self.set_tunnel(f"[{self._name}]" if ":" in self._name else self._name, port, proxy.headers)

    def connect(self) -> None:
        """Connect to the proxy, have it connect to the host, and greet that."""
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def proxy_for(parts: SplitResult) -> Proxy | None:
    """Return the proxy to ask for a URL; raise UnsupportedError for one that is not spoken to by HTTP."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    address = proxies.get(parts.scheme) or proxies.get("all")
    host = parts.hostname or ""
    if not address or proxy_bypass(parts.netloc.rpartition("@")[2], proxies):
        return None
    if host == "localhost" or _is_near(host, proxies.get("no", "")):
        return None
    try:
        place = urlsplit(address if "://" in address else f"http://{address}")
        if place.scheme != "http" or not place.hostname:
            raise ValueError
        port = place.port or _PORT
    except ValueError:
        raise UnsupportedError(
            f"the proxy for {host} is not one at http://HOST:PORT",
            hint=f"see {parts.scheme}_proxy, else all_proxy, in the environment",
        ) from None
    headers = {}
    if place.username is not None:
        import base64

        login = f"{unquote(place.username)}:{unquote(place.password or '')}"
        headers["Proxy-Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    return Proxy(place.hostname, port, headers)


def _is_near(host: str, no_proxy: str) -> bool:
    """Tell whether a host is an address of this machine, or one in no_proxy or in a network there."""
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for each in no_proxy.split(","):
        try:
            if address in ipaddress.ip_network(each.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
