"""What the user says about getting at an image: whom to trust, and who he is.

The options have the names that skopeo and podman give them.
"""

from __future__ import annotations

from composefs_ext import Request
from composefs_ext.tuples import NamedTuple

__all__ = ["Access", "access_of"]


class Access(NamedTuple):
    """``authfile`` and ``cert_dir`` are paths, None for the usual places.

    Without ``tls_verify`` certificates are not checked, and a registry without TLS will do.
    """

    authfile: str | None = None
    cert_dir: str | None = None
    tls_verify: bool = True


def access_of(request: Request) -> Access:
    """Return what the command's options say."""
    return Access(request.get("authfile"), request.get("cert_dir"), request.get("tls_verify", "true") == "true")
