"""One repository of a registry: requests that are authorised, tried again, and end in one clear error.

Tried again, later and later or when Retry-After says, is what may pass: connections refused, reset or silent, and the
statuses 408, 429 and 5xx but 511.  A host that has never answered and cannot be connected to is left sooner: its name
or port may be wrong, and whoever has typed them waits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from time import sleep, time

from composefs_ext.errors import ExtError, NetworkError, NotFoundError
from composefs_oci.formats.json_document import MAX_DOCUMENT
from composefs_oci.formats.reference import RegistryReference
from composefs_oci.sources.access import Access
from composefs_oci.sources.registry.authorizer import Authorizer
from composefs_oci.sources.registry.clientcert import certificate_error, is_told_by
from composefs_oci.sources.registry.http import RETRIES, RETRY_DELAY, Http, Response, UnreachedError, setting
from composefs_oci.sources.registry.proxy import LOGIN_WANTED, NETWORK_LOGIN, wants_login
from composefs_oci.sources.registry.trust import find_trust
from composefs_oci.sources.registry.urls import origin, parts_of, shown

__all__ = ["Answer", "Client", "Patience"]

_HUB = "registry-1.docker.io"
_FIRST_RETRIES = 2
"""How often to try again where nobody has answered yet, unless the user says how often."""
_LONG_WAIT = 1.0
_LONGEST_WAIT = 120.0
_TOO_MANY = 429
_PASSING = frozenset({408, _TOO_MANY, *range(500, 600)} - {NETWORK_LOGIN})
_LIMITED = frozenset({_TOO_MANY, 503})
"""What servers that limit the rate of requests answer; nginx says 503 unless it is told otherwise."""
_BAD_REQUEST = 400
_MAX_ERROR = 65536
_SHOWN = 300


class PassingError(NetworkError):
    """A failure that may pass; ``seconds`` is what the peer said to wait, or None."""

    def __init__(self, message: str, *, hint: str, subject: str, seconds: float | None) -> None:
        super().__init__(message, hint=hint, subject=subject, retryable=True)
        self.seconds = seconds


class Patience:
    """How often and how late to try again; ``tell`` gets a line before each longer wait."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell
        self._retries = int(setting(RETRIES))
        self._first_retries = self._retries if os.environ.get(RETRIES) else _FIRST_RETRIES
        self._delay = setting(RETRY_DELAY)
        self._attempts = 0

    def wait(self, error: ExtError) -> None:
        """Wait before the next attempt; raise the error if it will not pass or was seen too often."""
        self._attempts += 1
        retries = self._first_retries if isinstance(error, UnreachedError) else self._retries
        if not error.retryable or self._attempts > retries:
            raise (_extended(error, f" ({self._attempts} attempts)") if self._attempts > 1 else error) from None
        # Up to a quarter more, so that those who failed together do not come again together.
        seconds = min(self._delay * 2 ** min(self._attempts - 1, 20), _LONGEST_WAIT) * (1 + os.urandom(1)[0] / 1024)
        if isinstance(error, PassingError) and error.seconds is not None:
            if error.seconds > _LONGEST_WAIT:
                raise _extended(error, f" and wants us to wait for {error.seconds:.0f} seconds") from None
            seconds = max(seconds, error.seconds)
        if seconds >= _LONG_WAIT:
            self._tell(f"{error.message}; trying again in {seconds:.0f} s")
        sleep(seconds)

    def reset(self) -> None:
        """Begin to count anew, as there was progress."""
        self._attempts = 0


def _extended(error: ExtError, text: str) -> ExtError:
    error.message += text
    return error


class Answer:
    """A small answer, read to its end; ``media_type`` is what it was served as."""

    def __init__(self, response: Response, data: bytes) -> None:
        self.data = data
        self.header = response.header
        self.media_type = response.header("Content-Type")


class Client:
    """Requests for one repository."""

    def __init__(self, reference: RegistryReference, access: Access, tell: Callable[[str], object]) -> None:
        registry = reference.registry
        self._name = reference._replace(tag=None, digest=None)
        self._host = _HUB if registry == "docker.io" else registry
        self._access = access
        self._tell = tell
        self._http = Http(find_trust(registry, access), self._host)
        self._authorizer = Authorizer(self._http, registry, reference.repository, access)
        self._base: str | None = None

    def url(self, path: str) -> str:
        """Return the URL of something in the repository: ``manifests/latest``."""
        if self._base is None:
            self._base = f"https://{self._host}" if self._access.tls_verify else self._find_base()
        return f"{self._base}/v2/{self._name.repository}/{path}"

    def patience(self) -> Patience:
        """Return a new count of attempts."""
        return Patience(self._tell)

    def read(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Return a document with the status 200; raise NotFoundError, PermissionDeniedError or NetworkError."""
        patience = self.patience()
        while True:
            try:
                with self.ask(url, headers) as response:
                    return Answer(response, response.read_all(MAX_DOCUMENT))
            except NetworkError as error:
                patience.wait(error)

    def ask(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """Return the answer to one attempt, if its status is 200 or 206; the body is still to be read."""
        response = self._http.get(url, self._authorizer.header, headers)
        if response.status == 401 and origin(response.url) == origin(url):
            with response:
                self._authorizer.answer(url, response)
            response = self._http.get(url, self._authorizer.header, headers)
        if response.status in (200, 206):
            return response
        with response:
            raise self._refusal(url, response)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _find_base(self) -> str:
        """Find out whether a registry that need not speak TLS does so."""
        try:
            self._http.get(f"https://{self._host}/v2/").close()
        except NetworkError:
            return f"http://{self._host}"
        return f"https://{self._host}"

    def _refusal(self, url: str, response: Response) -> ExtError:
        status = response.status
        where = shown(url)
        if origin(response.url) != origin(url):
            where += f", redirected to {shown(response.url)}"
        elif status in (401, 403):
            return self._authorizer.denied(url)
        page = _page(response)
        if status == _BAD_REQUEST and parts_of(response.url).scheme == "https" and is_told_by(page):
            return certificate_error(where, is_given=self._http.is_certified(response.url))
        if status == LOGIN_WANTED:
            return wants_login(where)
        reason = _reason(page)
        if status == 404:
            tags = f", cfsctl oci list-tags {self._name} shows the tags" if "/manifests/" in url else ""
            return NotFoundError(
                f"{where}: not found{reason}",
                hint=f"check the name{tags}; a registry says this also of what only others may see",
                subject=shown(url),
            )
        if status in _PASSING:
            seconds = _retry_after(response.header("Retry-After"))
            hint = "try again later"
            if status in _LIMITED and (seconds or 0) <= _LONGEST_WAIT:
                hint += f", or more often: {RETRIES}=N in the environment"
            if status == _TOO_MANY:
                hint += f"; who is logged in may often ask for more: skopeo login {self._name.registry}"
            return PassingError(
                f"{where}: HTTP status {status}{reason}", hint=hint, subject=shown(url), seconds=seconds
            )
        hint = (
            "the network wants a login: open any web page in a browser" if status == NETWORK_LOGIN else "check the name"
        )
        return NetworkError(f"{where}: HTTP status {status}{reason}", hint=hint, subject=shown(url))


def _page(response: Response) -> bytes:
    """Return what came with an error, nothing if it cannot be had."""
    try:
        return response.read_all(_MAX_ERROR)
    except ExtError:
        return b""


def _reason(page: bytes) -> str:
    """Return what the registry says about an error, in few characters that print (distribution spec, "Error Codes")."""
    try:
        [first, *_] = json.loads(page)["errors"]
        text = f"{first['code']}: {first.get('message') or ''}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    return f" ({''.join(each for each in text if each.isprintable())[:_SHOWN].rstrip(': ')})"


def _retry_after(text: str) -> float | None:
    """Return the seconds that a header Retry-After means (RFC 9110, 10.2.3)."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None
