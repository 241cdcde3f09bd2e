"""One repository of a registry: requests that are authorised, tried again, and end in one clear error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from composefs_ext.errors import ExtError, NetworkError, NotFoundError
from composefs_oci.formats.json_document import MAX_DOCUMENT
from composefs_oci.formats.reference import RegistryReference
from composefs_oci.sources.access import Access
from composefs_oci.sources.registry.authorizer import Authorizer
from composefs_oci.sources.registry.clientcert import certificate_error, is_told_by
from composefs_oci.sources.registry.http import Http, Response
from composefs_oci.sources.registry.patience import PASSING, PassingError, Patience
from composefs_oci.sources.registry.proxy import LOGIN_WANTED, NETWORK_LOGIN, wants_login
from composefs_oci.sources.registry.trust import find_trust
from composefs_oci.sources.registry.urls import origin, parts_of, shown

__all__ = ["NOTHING_THERE", "Answer", "Client"]

_HUB = "registry-1.docker.io"
_BAD_REQUEST = 400
NOTHING_THERE = 416
"""What there is of a part that would begin behind the end."""

_MAX_ERROR = 65536
_SHOWN = 300


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
        """Return the answer to one attempt, if its status is 200 or 206, or 416 where a part is asked for.

        The body is still to be read.
        """
        response = self._http.get(url, self._authorizer.header, headers)
        if response.status == 401 and origin(response.url) == origin(url):
            with response:
                self._authorizer.answer(url, response)
            response = self._http.get(url, self._authorizer.header, headers)
        if response.status in (200, 206) or (response.status == NOTHING_THERE and "Range" in (headers or {})):
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
        if status in PASSING:
            return PassingError(
                f"{where}: HTTP status {status}{reason}", response, subject=shown(url), registry=self._name.registry
            )
        hint = "check the name"
        if status == NETWORK_LOGIN:
            hint = "the network wants a login: open any web page in a browser"
        elif status == 401:  # of another host
            place = parts_of(response.url).netloc
            hint = f"no login is sent to where a registry redirects; if it has moved, give {place}"
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
