"""URLs of registries: taken apart, compared, and shown without what may be secret in them."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

__all__ = ["origin", "parts_of", "shown"]

_SHOWN = 1000


def parts_of(url: str) -> SplitResult:
    """Return the parts of a URL that a peer may have sent: of one that is none, those of an empty one."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def shown(url: str) -> str:
    """Return a URL without what may be secret in it; of one without end, which a peer may send, the beginning."""
    parts = parts_of(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:_SHOWN]


def origin(url: str) -> tuple[str, str]:
    """Return the scheme and the host with its port, which a secret may not leave."""
    parts = parts_of(url)
    return parts.scheme.lower(), parts.netloc.lower()
