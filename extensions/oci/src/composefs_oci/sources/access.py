"""What the user says about getting at an image: whom to trust, and who he is.

The options have the names that skopeo and podman give them.
"""

from __future__ import annotations

from composefs_ext import Request
from composefs_ext.tuples import NamedTuple

__all__ = ["Access", "access_of"]


class Access(NamedTuple):
    """What the user says; as it is made, nothing."""

    authfile: str | None = None
    """The path of a file with logins; None: those in the usual places."""
    cert_dir: str | None = None
    """The path of a directory with certificates; None: those in the usual places."""
    tls_verify: bool = True
    """False: certificates are not checked, and a registry without TLS will do."""


def access_of(request: Request) -> Access:
    """Return what the command's options say."""
    return Access(request.get("authfile"), request.get("cert_dir"), request.get("tls_verify", "true") == "true")
