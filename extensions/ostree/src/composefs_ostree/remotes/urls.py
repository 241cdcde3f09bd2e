"""URLs of repositories and proxies: what they must look like and name, and how to show them without a password."""

from __future__ import annotations

from composefs_ext.errors import UsageError

__all__ = ["PROXY_FORM", "check_proxy", "check_url", "directory_of", "without_password"]

_LAST_PORT = 65535
_PROXY_SCHEMES = ("http", "https", "socks", "socks4", "socks4a", "socks5", "socks5h")

PROXY_FORM = f"[SCHEME://]HOST[:PORT], SCHEME one of {', '.join(_PROXY_SCHEMES)}"
"""How the URL of a proxy is written, for remedies."""


def check_url(url: str, *, query: bool = False) -> str:
    """Return a repository's URL without a slash at its end; raise UsageError for one that cannot be a repository's.

    With ``query`` it is the URL of one file, and may have a query.  The messages show nothing that may be a part of a
    password or a token.
    """
    scheme, separator, rest = url.partition("://")
    if scheme.lower() not in ("http", "https") or not separator or not rest:
        raise UsageError(
            f"{without_password(url).partition('?')[0]!r} is not an http or https URL",
            hint="begin it with https://; a directory is file:///PATH, or pull-local PATH, or list-refs --path PATH",
        )
    if not url.isprintable() or " " in url:
        raise UsageError(
            f"the URL {without_password(url).partition('?')[0]!r} has a space or a control character in it",
            hint="write a space as %20",
        )
    if not _is_host_and_port(rest.partition("/")[0].rpartition("@")[2]):
        raise UsageError(
            f"the {scheme} URL has a malformed host or port",
            hint="in a user name or password write / as %2F, @ as %40 and ? as %3F; around an IPv6 address put [ and ]",
        )
    marks = "#" if query else "?#"
    if (mark := min((mark for mark in marks if mark in rest), key=rest.index, default=None)) is not None:
        raise UsageError(
            f"the URL {without_password(url).partition(mark)[0]!r} goes on with {mark!r}",
            hint="give it without query and fragment: the names of the repository's files are appended to it",
        )
    if not query:
        return url.rstrip("/")
    if "/" not in rest.partition("?")[0]:
        raise UsageError(f"the URL {without_password(url).partition('?')[0]!r} names no file")
    return url


def directory_of(url: str) -> str:
    """Return the directory that a ``file`` URL names; raise UsageError if it names none on this machine."""
    from urllib.parse import unquote

    scheme, separator, rest = url.partition("://")
    path = unquote(rest.removeprefix("localhost"))
    if scheme.lower() != "file" or not separator or not path.startswith("/") or "\0" in path:
        raise UsageError(f"{url[:200]!r} names no directory", hint="write file:///PATH")
    return path


def check_proxy(url: str) -> None:
    """Raise UsageError for what cannot be the URL of a proxy; it is not shown, since it may have a password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "http", url
    user, _, place = rest.partition("/")[0].rpartition("@")
    if scheme.lower() not in _PROXY_SCHEMES or "@" in user or not _is_host_and_port(place):
        raise UsageError("the URL of the proxy cannot be used", hint=f"write {PROXY_FORM}")


def without_password(url: str) -> str:
    """Return a URL, or what should be one, without the user name and password that it may have."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url  # of a proxy that is true
    host, slash, path = rest.partition("/")
    if "@" in path and not _is_host_and_port(host.rpartition("@")[2]):  # there is a slash in the password
        host, slash, path = rest.rpartition("@")[2].partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _is_host_and_port(text: str) -> bool:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        good = host != "" and "]" in text and host.isascii() and all(c.isalnum() or c in ":.%" for c in host)
    else:
        host, colon, port = text.partition(":")
        port = colon + port
        good = host != "" and not any(c in "[] " for c in host)
    return good and (not port or _is_port(port))


def _is_port(text: str) -> bool:
    digits = text[1:]
    return text[0] == ":" and digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= _LAST_PORT
