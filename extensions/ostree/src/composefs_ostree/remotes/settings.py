"""How requests are made, as options of curl: from the remote's settings, the user's limits and the environment.

Credentials go to the hosts that the configuration names and to no other: not to the mirrors that a list names, nor to
where a server redirects.  They are read from files, and neither they nor the options are ever shown.  What netrc has
for a host libcurl gives to that host, wherever requests lead.
"""

from __future__ import annotations

import os

from composefs_ext import environment
from composefs_ext.errors import (
    CorruptError,
    ExtError,
    FormatError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
    UsageError,
)
from composefs_ext.files import open_regular, read_regular
from composefs_ext.tuples import NamedTuple
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.limits import Limits
from composefs_ostree.remotes.meter import Meter
from composefs_ostree.remotes.record import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    CurlOptions = tuple[tuple[int, Any], ...]
    """Options of a request, by their numbers in curl, with their values."""

__all__ = ["CONTENT_SECONDS", "METADATA_SECONDS", "Settings", "netrc_problem", "settings_of"]

METADATA_SECONDS = 3600
CONTENT_SECONDS = 86400
"""Seconds that one file may take, however slowly it comes: 128 MiB of metadata, and 4 GiB of content at 50 kB/s."""

LOW_SPEED_SECONDS = "COMPOSEFS_OSTREE_LOW_SPEED_TIME"
RETRIES = "COMPOSEFS_OSTREE_RETRIES"
RETRY_SECONDS = "COMPOSEFS_OSTREE_RETRY_DELAY"
NETRC = "NETRC"
CA_FILE = "SSL_CERT_FILE"
"""Names of environment variables: the seconds that a transfer may stay below 1000 bytes a second, how often to try
again, the seconds before the first time (they double for each further one), the netrc file, and that of authorities."""

_RETRIES = 5
_FIRST_RETRIES = 2
"""How often to try again unless the user says it, and how often where nobody has answered yet."""

_LOW_SPEED_BYTES = 1000
_TRANSFERS_AT_ONCE = 64
_SECRET_BYTES = 64 << 10
_MAX_HEADERS = 100
_HTTPAUTH_BEARER = 1 << 6  # CURLAUTH_BEARER, which pycurl has no name for
_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_HEADER = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff]*)"
_HARMLESS = frozenset({"accept", "accept-language", "authorization", "cookie", "user-agent"})
"""Headers that curl does not send to another host, and those that are no secret."""


class Settings(NamedTuple):
    """How requests are made.

    ``common`` are curl's options for all requests, ``secret`` those that only ``origins`` (scheme, host and port) get;
    ``connections`` may be open at a time in all processes together (None: a few in each), ``retries`` follow a failure,
    the first after ``retry_seconds``, ``first_retries`` if the host cannot be connected to and never has answered, and
    ``mirror_retries`` at each place where there are several;
    ``seconds`` bounds one transfer (None: a bound that suits what is fetched); a mirror that has not answered after
    ``patience`` seconds has the next one asked too.
    """

    common: CurlOptions
    secret: CurlOptions
    origins: frozenset[tuple[str, str, int]]
    connections: int | None
    retries: int
    first_retries: int
    mirror_retries: int
    retry_seconds: float
    seconds: int | None
    patience: float
    meter: Meter | None

    def __repr__(self) -> str:
        return f"Settings(connections={self.connections}, retries={self.retries})"

    def options(self, url: str) -> CurlOptions:
        """Return curl's options for requests to a repository at a URL."""
        secret = self.secret if self.secret and _origin(url) in self.origins else ()
        if not url.lower().startswith("https:"):
            return (*self.common, *secret)
        # PIPEWAIT: let the first connection tell whether it takes all requests (HTTP/2) before opening more.
        return (*self.common, *secret, (pycurl.PIPEWAIT, 1), (pycurl.REDIR_PROTOCOLS, pycurl.PROTO_HTTPS))


def settings_of(remote: Remote | None, limits: Limits, urls: Sequence[str]) -> Settings:
    """Return how requests to a remote are made; ``urls`` are those that the user or the configuration names.

    Raises UsageError or FormatError for settings that make no sense, NotFoundError for files that are not there.
    """
    remote = remote or Remote("")
    seconds = limits.low_speed_seconds
    if seconds is None:
        seconds = max(1, round(environment.number(LOW_SPEED_SECONDS, 30)))
    retries = limits.retries
    if retries is None:
        retries = int(environment.number(RETRIES, -1))
    secret = (*_login(remote), *_header_options(remote, limits))
    return Settings(
        common=(
            *_tls_options(remote),
            *_proxy_options(remote),
            *_netrc_options(),
            (pycurl.LOW_SPEED_LIMIT, _low_speed_bytes(limits)),
            (pycurl.LOW_SPEED_TIME, seconds),
        ),
        secret=secret,
        origins=frozenset(map(_origin, urls)) if secret else frozenset(),
        connections=limits.connections,
        retries=_RETRIES if retries < 0 else retries,
        first_retries=_FIRST_RETRIES if retries < 0 else retries,
        mirror_retries=min(1, abs(retries)) if limits.retries is None else retries,
        retry_seconds=environment.number(RETRY_SECONDS, 0.5),
        seconds=limits.seconds,
        patience=seconds / 10,
        meter=None if limits.rate is None else Meter(limits.rate),
    )


def _low_speed_bytes(limits: Limits) -> int:
    """Return below which speed a transfer is given up; one that we slow down ourselves is not."""
    wanted = _LOW_SPEED_BYTES if limits.low_speed_bytes is None else limits.low_speed_bytes
    return wanted if limits.rate is None else min(wanted, limits.rate // _TRANSFERS_AT_ONCE)


def _tls_options(remote: Remote) -> CurlOptions:
    options = [*_authorities(remote), *_client_certificate(remote)]
    if remote.boolean("tls-permissive", False):
        options += [(pycurl.SSL_VERIFYPEER, 0), (pycurl.SSL_VERIFYHOST, 0)]
    if not remote.boolean("http2", True):
        options.append((pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1))
    return tuple(options)


def _authorities(remote: Remote) -> CurlOptions:
    """Return whom to trust: those that the remote names, else the environment's and the system's."""
    if remote.settings.get("tls-ca-path"):
        path = _existing(remote, "tls-ca-path")
        # Debian's libcurl looks into the system's directory too unless it is told of another; in a file it finds none.
        return ((pycurl.CAINFO, path), (pycurl.CAPATH, path))
    options: list[tuple[int, Any]] = []
    if ca_file := os.environ.get(CA_FILE):
        _check_regular(ca_file, f"{CA_FILE} has to name a file of certificates in PEM, by its absolute path")
    if ca_file := ca_file or next(filter(os.path.exists, _CA_FILES), None):
        options.append((pycurl.CAINFO, ca_file))
    if ca_directory := os.environ.get("SSL_CERT_DIR"):
        options.append((pycurl.CAPATH, ca_directory))
    return tuple(options)


def _client_certificate(remote: Remote) -> CurlOptions:
    has_certificate = bool(remote.settings.get("tls-client-cert-path"))
    if has_certificate != bool(remote.settings.get("tls-client-key-path")):
        raise FormatError(
            f"{remote.origin}: remote {remote.name!r} has one of tls-client-cert-path and tls-client-key-path",
            hint="give both or neither; if one file holds certificate and key, name it twice",
            subject=remote.name,
        )
    if not has_certificate:
        return ()
    pair = (
        (pycurl.SSLCERT, _existing(remote, "tls-client-cert-path")),
        (pycurl.SSLKEY, _existing(remote, "tls-client-key-path")),
    )
    # OpenSSL else asks for a passphrase, wherever it finds a terminal; with one GnuTLS reads no key that needs none.
    return pair if "GnuTLS" in pycurl.version else (*pair, (pycurl.KEYPASSWD, ""))


def _existing(remote: Remote, key: str) -> str:
    """Return the path in a setting if there is something that can be read."""
    path = remote.settings[key]
    if path.startswith("pkcs11:"):
        raise UnsupportedError(
            f"{remote.origin}: {key} of remote {remote.name!r} is on a token", hint="only files in PEM can be used"
        )
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))  # access(2) knows nothing of confinement
    except PermissionError:
        raise _denied(path) from None
    except OSError:
        raise NotFoundError.at(
            path, f"{key} of remote {remote.name!r} cannot be read", hint=f"see {remote.origin}"
        ) from None
    _check_regular(path, f"{key} of remote {remote.name!r} has to name one: see {remote.origin}")
    return path


def _check_regular(path: str, hint: str | None = None) -> None:
    """Raise UsageError for what is there and is no regular file: libcurl would wait for a named pipe for ever."""
    try:
        os.close(open_regular(path))
    except OSError:
        return  # of which it says what is wrong
    except CorruptError as error:
        raise UsageError.at(path, error.message, hint=hint) from None


def _denied(path: str) -> ExtError:
    from shlex import quote

    way = f"cfsctl --ext-read {quote(path)} lets them read it"
    return PermissionDeniedError.at(
        path, "permission denied", hint=f"extensions are confined: {way}; else check its owner and mode"
    )


def _proxy_options(remote: Remote) -> CurlOptions:
    """Return the remote's proxy; without one, curl takes that of the environment."""
    proxy = remote.settings.get("proxy")
    return ((pycurl.PROXY, proxy),) if proxy else ()


def netrc_problem() -> str | None:
    """Return what the user should know of the netrc file: that it is not read, or others can read or write it."""
    named = os.environ.get(NETRC) or os.devnull
    if not os.path.isabs(named):
        return f"{named}: not read, as {NETRC} has to name its file by the absolute path"
    path = _netrc()
    if path is None:
        is_none = os.path.realpath(named) == os.devnull
        return None if is_none else f"{named}: not read, as it is not there, or not for you to read (see {NETRC})"
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
        return f"{path}: others can read or change the passwords in it (chmod 600 {path})"
    return None


def _netrc() -> str | None:
    path = os.environ.get(NETRC) or os.path.expanduser("~/.netrc")
    if not os.access(path, os.R_OK) or os.path.realpath(path) == os.devnull:
        return None
    _check_regular(path, f"{NETRC}, else ~/.netrc, has to name one")
    return path


def _netrc_options() -> CurlOptions:
    path = _netrc()
    return () if path is None else ((pycurl.NETRC, pycurl.NETRC_OPTIONAL), (pycurl.NETRC_FILE, path))


def _login(remote: Remote) -> CurlOptions:
    """Return who we are; what a file holds is nowhere but here and in curl."""
    basic, bearer = (remote.settings.get(f"http-{name}-file") for name in ("basic-auth", "bearer-token"))
    if basic and bearer:
        raise FormatError(
            f"{remote.origin}: remote {remote.name!r} has both http-basic-auth-file and http-bearer-token-file",
            hint="keep one of them",
            subject=remote.name,
        )
    if basic:
        user, colon, password = _secret(basic).strip("\r\n").partition(":")
        if not colon or not (user + password).isprintable():
            raise FormatError.at(basic, "it does not hold USER:PASSWORD")
        return (
            (pycurl.HTTPAUTH, pycurl.HTTPAUTH_BASIC),
            (pycurl.USERNAME, user.encode()),
            (pycurl.PASSWORD, password.encode()),
        )
    if bearer:
        token = _secret(bearer).strip()
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise FormatError.at(bearer, "it does not hold a token", hint="a token is one word")
        return ((pycurl.HTTPAUTH, _HTTPAUTH_BEARER), (pycurl.XOAUTH2_BEARER, token))
    return ()


def _header_options(remote: Remote, limits: Limits) -> CurlOptions:
    """Return the headers that the remote's file has, then those of the user's."""
    paths = (remote.settings.get("http-headers-file"), limits.header_file)
    lines = [line for path in paths if path for line in _headers(path)]
    if not lines:
        return ()
    headers = (pycurl.HTTPHEADER, [line.encode() for line in lines])
    if _HARMLESS.issuperset(line.partition(":")[0].lower() for line in lines):
        return (headers,)
    return (headers, (pycurl.FOLLOWLOCATION, 0))  # curl would send them to wherever the server says


def _headers(path: str) -> list[str]:
    """Read a file of ``NAME: VALUE`` lines; empty lines and those that begin with ``#`` do not count."""
    import re

    lines: list[str] = []
    for number, line in enumerate(_secret(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.fullmatch(_HEADER, line.rstrip())
        if parts is None or len(lines) == _MAX_HEADERS:
            raise FormatError.at(path, f"line {number} is not NAME: VALUE, or one too many")
        # With ";" curl sends a header that has no value.
        lines.append(f"{parts[1]}: {parts[2]}" if parts[2] else f"{parts[1]};")
    return lines


def _secret(path: str) -> str:
    _check_regular(path)
    try:
        return read_regular(path, _SECRET_BYTES).decode()
    except CorruptError as error:
        raise CorruptError.at(path, error.message) from None
    except PermissionError:
        raise _denied(path) from None
    except UnicodeDecodeError:
        raise FormatError.at(path, "it is not text") from None


def _origin(url: str) -> tuple[str, str, int]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ExtError("the URL has a malformed host or port") from None
