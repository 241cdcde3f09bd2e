"""Credentials for curl: a login, headers and a netrc file.  They are read from files, and never shown."""

from __future__ import annotations

import os

from composefs_ext.errors import FormatError
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.namedfiles import existing_path, read_secret, require_regular
from composefs_ostree.remotes.record import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ostree.remotes.curl import CurlOptions

__all__ = ["header_options", "login_options", "netrc_options", "netrc_problem"]

_NETRC = "NETRC"
"""The name of the environment variable that names the netrc file."""

_BASIC = "http-basic-auth-file"
_BEARER = "http-bearer-token-file"
_HTTPAUTH_BEARER = 1 << 6  # CURLAUTH_BEARER, which pycurl has no name for
_MAX_HEADERS = 100
_HEADER = r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff]*)"
_HARMLESS = frozenset({"accept", "accept-language", "authorization", "cookie", "user-agent"})
"""Headers that curl does not send to another host, and those that are no secret."""


def login_options(remote: Remote) -> CurlOptions:
    """Return who we are; what a file holds is nowhere but here and in curl."""
    if remote.settings.get(_BASIC) and remote.settings.get(_BEARER):
        raise FormatError(
            f"{remote.origin}: remote {remote.name!r} has both {_BASIC} and {_BEARER}",
            hint="keep one of them",
            subject=remote.name,
        )
    if basic := _file(remote, _BASIC):
        user, colon, password = read_secret(basic).strip("\r\n").partition(":")
        if not colon or not (user + password).isprintable():
            raise FormatError.at(basic, "it does not hold USER:PASSWORD")
        return (
            (pycurl.HTTPAUTH, pycurl.HTTPAUTH_BASIC),
            (pycurl.USERNAME, user.encode()),
            (pycurl.PASSWORD, password.encode()),
        )
    if bearer := _file(remote, _BEARER):
        token = read_secret(bearer).strip()
        if not token.isascii() or not token.isprintable() or " " in token or not token:
            raise FormatError.at(bearer, "it does not hold a token", hint="a token is one word")
        return ((pycurl.HTTPAUTH, _HTTPAUTH_BEARER), (pycurl.XOAUTH2_BEARER, token))
    return ()


def _file(remote: Remote, key: str) -> str | None:
    return existing_path(remote, key) if remote.settings.get(key) else None


def header_options(remote: Remote, user_file: str | None) -> CurlOptions:
    """Return the headers that the remote's file has, then those of ``user_file``."""
    paths = (_file(remote, "http-headers-file"), user_file)
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
    for number, line in enumerate(read_secret(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.fullmatch(_HEADER, line.rstrip())
        if parts is None or len(lines) == _MAX_HEADERS:
            raise FormatError.at(path, f"line {number} is not NAME: VALUE, or one too many")
        # With ";" curl sends a header that has no value.
        lines.append(f"{parts[1]}: {parts[2]}" if parts[2] else f"{parts[1]};")
    return lines


def netrc_options() -> CurlOptions:
    """Return where curl finds the user's names and passwords for hosts, if there is such a file."""
    path = _netrc()
    return () if path is None else ((pycurl.NETRC, pycurl.NETRC_OPTIONAL), (pycurl.NETRC_FILE, path))


def netrc_problem() -> str | None:
    """Return what the user should know of the netrc file: that it is not read, or others can read or change it."""
    named = os.environ.get(_NETRC) or os.devnull
    if not os.path.isabs(named):
        return f"{named}: not read, as {_NETRC} has to name its file by the absolute path"
    path = _netrc()
    if path is None:
        is_none = os.path.realpath(named) == os.devnull
        return None if is_none else f"{named}: not read, as it is not there, or not for you to read (see {_NETRC})"
    status = os.stat(path)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o077:
        return f"{path}: others can read or change the passwords in it (chmod 600 {path})"
    return None


def _netrc() -> str | None:
    """Return the path of the netrc file; None if there is none that can be read, or it is /dev/null."""
    path = os.environ.get(_NETRC) or os.path.expanduser("~/.netrc")
    if not os.access(path, os.R_OK) or os.path.realpath(path) == os.devnull:
        return None
    require_regular(path, f"{_NETRC}, else ~/.netrc, has to name one")
    return path
