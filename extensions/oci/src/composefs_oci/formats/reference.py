"""References: the text that says where an image is.

    docker://[REGISTRY/]NAME[:TAG][@DIGEST]   in a registry; docker.io and its library are filled in as Docker does
    oci:PATH[:TAG]                            in an OCI layout, a directory
    oci-archive:PATH[:TAG]                    in the tar archive of one; in both, @0 for TAG is the first image

The grammar of names is that of the module ``reference`` of CNCF distribution; the transports' names are those of
skopeo, containers-transports(5).
"""

from __future__ import annotations

import re
from os.path import exists, join

from composefs_ext.errors import UnsupportedError, UsageError
from composefs_ext.tuples import NamedTuple
from composefs_oci.formats.digest import is_digest

__all__ = ["LayoutReference", "Reference", "RegistryReference", "is_tag", "parse_reference"]

DEFAULT_TAG = "latest"
DOCKER_HUB = "docker.io"
_HUB_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})

_HOST = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_REGISTRY = re.compile(rf"(?:{_HOST}(?:\.{_HOST})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_MAX_NAME = 255

_OTHERS = ("containers-storage", "dir", "docker-archive", "docker-daemon", "ostree", "sif", "tarball")
"""Transports of skopeo that are not read here."""


class RegistryReference(NamedTuple):
    """An image in a registry; with a digest the tag only tells people what it is."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"docker://{self.registry}/{self.repository}{tag}{digest}"


class LayoutReference(NamedTuple):
    """An image in an OCI layout, a directory or the archive of one, and its name there (None: there is only one)."""

    path: str
    tag: str | None
    is_archive: bool


Reference = LayoutReference | RegistryReference


def is_tag(text: str) -> bool:
    """Whether a registry could have a tag of this name."""
    return _TAG.fullmatch(text) is not None


def parse_reference(text: str, directory: str | None = None) -> Reference:
    """Read a reference; raise UsageError, or UnsupportedError for a transport that is known elsewhere.

    Relative paths are taken from ``directory``.  A colon may be part of a path, so that it counts which of those that
    are possible there is.
    """
    if text.startswith("docker://"):
        return _parse_name(text.removeprefix("docker://"))
    transport, colon, rest = text.partition(":")
    if transport in ("oci", "oci-archive") and colon:
        path, tag = _split(rest, directory)
        if not path or "\0" in path:
            raise UsageError(f"{text!r} has no path", hint=f"give it as {transport}:PATH or {transport}:PATH:TAG")
        return LayoutReference(path, tag, is_archive=transport == "oci-archive")
    if transport in _OTHERS and colon:
        raise UnsupportedError(
            f"images of the transport {transport}: cannot be read",
            hint=f"copy it first: skopeo copy {text} oci-archive:image.tar:latest",
        )
    raise UsageError(
        f"{text[:300]!r} does not say where the image is",
        hint=_beginning(text),
    )


def _beginning(text: str) -> str:
    """Say how a reference without a transport should begin, or in full what it may be if it could be in a registry."""
    name = re.sub(r"^(?:https?://|docker:/*)", "", text)
    try:
        _parse_name(name)
    except UsageError:
        return "begin it with docker:// (a registry), oci: (a layout's directory) or oci-archive: (its archive)"
    return f"in a registry it is docker://{name}; a layout's directory is oci:PATH, its archive oci-archive:PATH"


def _parse_name(name: str) -> RegistryReference:
    """Read [REGISTRY/]NAME[:TAG][@DIGEST]; raise UsageError."""
    rest, at, digest = name.partition("@")
    if at and "/" in digest:
        head, _, last = name.rpartition("@")
        # A password may have @ and / in it, and nothing of it is to be shown.
        host = (head if is_digest(last) else name).rpartition("@")[2].partition("/")[0]
        raise UsageError(
            "a login is no part of an image's name", hint=f"log in: skopeo login {host[:160]}; or give --authfile"
        )
    if at and not is_digest(digest):
        raise UsageError(f"{name[:300]!r}: {digest[:160]!r} is not a digest", hint="write @sha256: and 64 digits")
    head, slash, tail = rest.rpartition("/")
    tail, colon, tag = tail.partition(":")
    if colon and not is_tag(tag):
        raise UsageError(f"{name[:300]!r}: {tag[:160]!r} cannot be a tag", hint="a tag has letters, digits, . _ and -")
    registry, repository = _normalise(head + slash + tail)
    if not _REGISTRY.fullmatch(registry):
        raise UsageError(f"{name[:300]!r}: {registry!r} is not a host", hint="write HOST[:PORT]/NAME, without a user")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _MAX_NAME:
        raise UsageError(
            f"{name[:300]!r}: {repository[:160]!r} cannot be the name of an image",
            hint="names are lower-case letters and digits with . _ - between them, and / between their parts",
        )
    return RegistryReference(registry, repository, tag or (None if digest else DEFAULT_TAG), digest or None)


def _normalise(name: str) -> tuple[str, str]:
    """Return registry and repository as Docker understands a name."""
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & set(".:[") or first == "localhost" or first != first.lower()):
        first, rest = DOCKER_HUB, name
    if first in _HUB_ALIASES:
        first = DOCKER_HUB
    if first == DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    return first, rest


def _split(text: str, directory: str | None) -> tuple[str, str | None]:
    """Return the path, absolute if ``directory`` is, and the tag."""

    def absolute(path: str) -> str:
        return join(directory, path) if directory and path else path

    colons = [position for position, character in enumerate(text) if character == ":"]
    for end in (len(text), *reversed(colons)):
        path = absolute(text[:end])
        if path and "\0" not in path and exists(path):
            return path, text[end + 1 :] or None
    # It is not there: let the message name what most likely was meant.
    path, colon, tag = text.rpartition(":")
    return (absolute(path), tag or None) if colon and "/" not in tag else (absolute(text), None)
