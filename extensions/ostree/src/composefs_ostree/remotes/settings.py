"""How requests are made, as options of curl: from the remote's settings, the user's limits and the environment.

Credentials go to the hosts that the configuration names and to no other: not to the mirrors that a list names, nor to
where a server redirects.  What netrc has for a host libcurl gives to that host, wherever requests lead.
"""

from __future__ import annotations

from composefs_ext import environment
from composefs_ext.errors import ExtError
from composefs_ext.tuples import NamedTuple
from composefs_ostree.remotes.credentials import header_options, login_options, netrc_options
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.limits import Limits
from composefs_ostree.remotes.meter import Meter
from composefs_ostree.remotes.record import Remote
from composefs_ostree.remotes.tls import tls_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from composefs_ostree.remotes.curl import CurlOptions

__all__ = ["CONTENT_SECONDS", "METADATA_SECONDS", "Settings", "settings_of"]

METADATA_SECONDS = 3600
CONTENT_SECONDS = 86400
"""Seconds that one file may take, however slowly it comes: 128 MiB of metadata, and 4 GiB of content at 50 kB/s."""

LOW_SPEED_SECONDS = "COMPOSEFS_OSTREE_LOW_SPEED_TIME"
RETRIES = "COMPOSEFS_OSTREE_RETRIES"
RETRY_SECONDS = "COMPOSEFS_OSTREE_RETRY_DELAY"
"""Names of environment variables: the seconds that a transfer may stay below 1000 bytes a second, how often to try
again, and the seconds before the first time (they double for each further one)."""

_RETRIES = 5
_FIRST_RETRIES = 2
"""How often to try again unless the user says it, and how often where nobody has answered yet."""

_LOW_SPEED_BYTES = 1000


class Settings(NamedTuple):
    """How requests are made."""

    common: CurlOptions
    """curl's options for all requests."""
    secret: CurlOptions
    """Those that only ``origins`` get."""
    origins: frozenset[tuple[str, str, int]]
    """Schemes, hosts and ports."""
    connections: int | None
    """How many may be open at a time in all processes together; None: a few in each."""
    retries: int
    """How often a request that failed is made again."""
    first_retries: int
    """That, where the host cannot be connected to and never has answered."""
    mirror_retries: int
    """That, at each place where there are several."""
    retry_seconds: float
    """Before the first time that a request is made again; doubled for each further one."""
    seconds: int | None
    """How long one transfer may take; None: as long as suits what is fetched."""
    patience: float
    """Seconds after which, if a mirror has not answered, the next one is asked too."""
    meter: Meter | None
    """What keeps all transfers together below the rate that the user wants; None: any rate will do."""

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
    secret = (*login_options(remote), *header_options(remote, limits.header_file))
    return Settings(
        common=(
            *tls_options(remote),
            *_proxy_options(remote),
            *netrc_options(),
            # What we slow down ourselves is paused, and libcurl (since 7.75) calls nothing too slow that is.
            (pycurl.LOW_SPEED_LIMIT, _LOW_SPEED_BYTES if limits.low_speed_bytes is None else limits.low_speed_bytes),
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


def _proxy_options(remote: Remote) -> CurlOptions:
    """Return the remote's proxy; without one, curl takes that of the environment."""
    proxy = remote.settings.get("proxy")
    return ((pycurl.PROXY, proxy),) if proxy else ()


def _origin(url: str) -> tuple[str, str, int]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise ExtError("the URL has a malformed host or port") from None
