"""Who the user is to a registry: the files that ``podman login``, ``skopeo login`` and ``docker login`` write.

Read are ``--authfile``, or else ``$REGISTRY_AUTH_FILE``, and nothing further if one of them is given; else the first
that has an entry of ``$XDG_RUNTIME_DIR/containers/auth.json``, ``$XDG_CONFIG_HOME/containers/auth.json`` and Docker's
``config.json``.  Sources: containers-auth.json(5); docker-credential-helpers, "Development".

Secrets are never part of a message.  A helper is a program ``docker-credential-NAME`` in the user's PATH.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import re
from collections.abc import Iterator, Mapping

from composefs_ext.errors import ExtError, FormatError, NotFoundError, TooLargeError
from composefs_ext.tuples import NamedTuple
from composefs_oci.formats.json_document import MAX_DOCUMENT, Fields, parse_object
from composefs_oci.sources.regular import open_regular

__all__ = ["Credentials", "find_credentials"]

_DAMAGED = "mend or remove the file: skopeo login writes it"
_MAX_ANSWER = 1 << 20
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_TOKEN_USER = "<token>"  # noqa: S105  # what a helper calls the user of an identity token
_HELPER_SECONDS = 120
_TEXT = re.compile(r"[^\ud800-\udfff]*")
_NOTHING = re.compile(rb"credentials not found|no credentials|not found in", re.IGNORECASE)


class Credentials(NamedTuple):
    """A user and password, or else an identity token, with which tokens can be had."""

    user: str
    password: str
    identity_token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(…)"

    def basic(self) -> str:
        """Return the header Authorization for basic authentication (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_credentials(registry: str, repository: str, authfile: str | None) -> Credentials | None:
    """Return what the files say about a repository; raise FormatError, NotFoundError or an error of a helper."""
    for path, is_wanted in _files(authfile, os.environ):
        try:
            data = _read(path)
        except PermissionError:
            # Where root has logged in, /run/containers is root's alone.
            if is_wanted or os.path.lexists(path):
                raise
            data = None
        if data is None:
            if is_wanted:
                raise NotFoundError(f"{path} does not exist", hint="it is written by: skopeo login", subject=path)
            continue
        found = _look_up(parse_object(data, path, _DAMAGED), registry, repository)
        if found is not None:
            return found
    return None


def _files(authfile: str | None, environment: Mapping[str, str]) -> Iterator[tuple[str, bool]]:
    """Yield the paths to read in order, and whether the user insists on one."""
    wanted = authfile or environment.get("REGISTRY_AUTH_FILE")
    if wanted:
        yield wanted, True
        return
    home = environment.get("HOME") or os.path.expanduser("~")
    runtime = environment.get("XDG_RUNTIME_DIR")
    config = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    docker = environment.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
    yield f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.getuid()}/auth.json", False
    yield f"{config}/containers/auth.json", False
    yield f"{docker}/config.json", False


def _read(path: str) -> bytes | None:
    try:
        with io.BufferedReader(open_regular(path)) as file:
            return file.read(MAX_DOCUMENT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _look_up(fields: Fields, registry: str, repository: str) -> Credentials | None:
    helpers = fields.mapping("credHelpers")
    for name in _names(registry, repository):
        if name in helpers:
            return _ask(helpers[name], name)
    auths = fields.inner("auths")
    # Of several the shortest with a login counts: Docker keeps tokens for itself beside it, at …/v1/access-token.
    keys = sorted(auths.keys(), key=lambda key: (len(key), key.startswith("http:"))) if auths else []
    for name in _names(registry, repository):
        for key in keys:
            if auths and _registry_of(key) == name and (entry := auths.inner(key)):
                found = _entry(entry)
                if found is not None:
                    return found
    store = fields.text("credsStore", "")
    if store:
        return _ask(store, "https://index.docker.io/v1/" if registry == "docker.io" else registry)
    return None


def _names(registry: str, repository: str) -> Iterator[str]:
    """Yield under what names credentials may be kept, the most special first."""
    parts = repository.split("/")
    for length in range(len(parts), 0, -1):
        yield "/".join([registry, *parts[:length]])
    yield registry
    if registry == "docker.io":
        yield "index.docker.io"


def _registry_of(key: str) -> str:
    """Return the name that a key stands for: Docker writes URLs."""
    _, separator, rest = key.rpartition("://")
    if separator:
        return rest.partition("/")[0]
    return rest.rstrip("/")


def _entry(entry: Fields) -> Credentials | None:
    token = entry.text("identitytoken", "") or None
    encoded = entry.text("auth", "")
    if encoded:
        try:
            text = base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise FormatError.at(entry.where, "auth is not base64", hint="log in again") from None
        user, colon, password = text.partition(":")
        if not colon:
            raise FormatError.at(entry.where, "auth has no password", hint="log in again")
        return _sendable(Credentials(user, password.rstrip("\0"), token), entry.where)
    user, password = entry.text("username", ""), entry.text("password", "")
    if user or token:
        return _sendable(Credentials(user, password, token), entry.where)
    return None


def _sendable(credentials: Credentials, where: str) -> Credentials:
    """Return what JSON said, if it is text: half a surrogate pair is none, and could not be sent."""
    if not all(_TEXT.fullmatch(each or "") for each in credentials):
        raise FormatError.at(where, "the login is not text", hint="log in again")
    return credentials


def _ask(helper: str, server: str) -> Credentials | None:
    """Have a helper look a registry up; None if it has nothing."""
    import subprocess

    if not _HELPER.fullmatch(helper):
        raise FormatError(f"{helper[:80]!r} cannot be the name of a credential helper")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, check=False, timeout=_HELPER_SECONDS
        )
    except FileNotFoundError:
        raise NotFoundError(
            f"the credential helper {program} is not in PATH",
            hint="install it, or remove it from the file that names it",
            subject=program,
        ) from None
    except subprocess.TimeoutExpired:
        raise ExtError(f"{program} does not answer", hint="run it by hand to see what it waits for") from None
    if done.returncode != 0:
        # Its output may hold anything, and is not shown.
        if _NOTHING.search(done.stdout + done.stderr):
            return None
        raise ExtError(
            f"{program} failed for {server} with exit status {done.returncode}",
            hint=f"see what it says: echo {server} | {program} get",
            subject=program,
        )
    return _answer(done.stdout, program)


def _answer(data: bytes, program: str) -> Credentials:
    if len(data) > _MAX_ANSWER:
        raise TooLargeError(f"{program} answered with {len(data)} bytes", subject=program)
    try:
        answer = json.loads(data)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FormatError(f"{program} answered with something else than credentials", subject=program) from None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise FormatError(f"{program} answered with something else than credentials", subject=program)
    return _sendable(Credentials("", "", secret) if user == _TOKEN_USER else Credentials(user, secret), program)
