"""How a client gets what it needs to be answered: a token from where the registry's challenge says, or a password.

Sources: CNCF distribution, "Token Authentication Specification" and "OAuth2 Token Authentication"; RFC 7617.

A registry alone decides where the password for it goes, so the place must be as safe as the registry: not over plain
HTTP, unless the user does without checks of TLS.
"""

from __future__ import annotations

from functools import cached_property
from urllib.parse import urlencode

from composefs_ext.errors import NetworkError, PermissionDeniedError
from composefs_oci.formats.json_document import parse_object
from composefs_oci.sources.access import Access
from composefs_oci.sources.registry.challenge import Challenge, parse_challenges
from composefs_oci.sources.registry.credentials import Credentials, find_credentials
from composefs_oci.sources.registry.http import Http, Response
from composefs_oci.sources.registry.patience import PASSING, PassingError
from composefs_oci.sources.registry.urls import parts_of, shown

__all__ = ["Authorizer"]

_BROKEN = "the registry's token service has a problem"
_CLIENT = "composefs-oci"
_MAX_TOKEN = 1 << 20


class Authorizer:
    """The header Authorization for one repository, None as long as nobody has asked for one."""

    def __init__(self, http: Http, registry: str, repository: str, access: Access) -> None:
        self.header: str | None = None
        self._http = http
        self._registry = registry
        self._repository = repository
        self._access = access

    def answer(self, url: str, response: Response) -> None:
        """Get what the challenge in a response of status 401 asks for; raise PermissionDeniedError or NetworkError."""
        challenges = parse_challenges(response.header("WWW-Authenticate"))
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                self.header = f"Bearer {self._token(url, challenge)}"
                return
        for challenge in challenges:
            if challenge.scheme == "basic":
                if self._credentials is None or not self._credentials.user:
                    raise self.denied(url)
                self.header = self._credentials.basic()
                return
        raise PermissionDeniedError.at(
            shown(url), "the registry wants an authentication that is not known here", hint="known are Bearer and Basic"
        )

    def denied(self, url: str) -> PermissionDeniedError:
        """Return the error for a registry that does not let the user in."""
        if self._credentials is None:
            return PermissionDeniedError.at(
                shown(url),
                "the registry wants to know who you are, or has no such image",
                hint=f"log in: skopeo login {self._registry}; or give --authfile",
            )
        return PermissionDeniedError.at(
            shown(url),
            f"the registry refuses your login for {self._registry}",
            hint=f"check the image's name, or log in again: skopeo login {self._registry}",
        )

    @cached_property
    def _credentials(self) -> Credentials | None:
        return find_credentials(self._registry, self._repository, self._access.authfile)

    def _token(self, url: str, challenge: Challenge) -> str:
        realm = challenge.parameters["realm"]
        self._check_realm(url, realm)
        fields = {"scope": challenge.parameters.get("scope") or f"repository:{self._repository}:pull"}
        if service := challenge.parameters.get("service"):
            fields["service"] = service
        credentials = self._credentials
        if credentials is not None and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "client_id": _CLIENT,
                "refresh_token": credentials.identity_token,
                **fields,
            }
            response = self._http.post(realm, form)
        else:
            if credentials is not None:
                fields["account"] = credentials.user
            mark = "&" if parts_of(realm).query else "?"
            response = self._http.get(
                f"{realm}{mark}{urlencode(fields)}", credentials.basic() if credentials is not None else None
            )
        with response:
            if response.status in (400, 401, 403):
                raise self.denied(url)
            told = f"HTTP status {response.status} instead of a token"
            if response.status in PASSING:
                place = shown(realm)
                raise PassingError(f"{place}: {told}", response, subject=place, registry=self._registry)
            if response.status != 200:
                raise NetworkError.at(shown(realm), told, hint=_BROKEN)
            answer = parse_object(response.read_all(_MAX_TOKEN), shown(realm), _BROKEN)
        token = answer.text("token", "") or answer.text("access_token", "")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise NetworkError.at(shown(realm), "the answer holds no token", hint=_BROKEN)
        return token

    def _check_realm(self, url: str, realm: str) -> None:
        parts = parts_of(realm)
        schemes = ("https",) if self._access.tls_verify else ("https", "http")
        if parts.scheme not in schemes or not parts.hostname or parts.username is not None:
            raise PermissionDeniedError.at(
                shown(url),
                f"the registry sends its users to {shown(realm)[:300]!r} for tokens, which is not safe",
                hint="nothing was sent there",
            )
