"""What curl is to know of TLS: whose certificates to trust, and which one to show to a server that asks.

What comes of a server that wants another one is in :mod:`composefs_ostree.remotes.clientcert`.
"""

from __future__ import annotations

import os

from composefs_ext.errors import FormatError
from composefs_ostree.remotes.curl import pycurl
from composefs_ostree.remotes.namedfiles import existing_path, require_regular
from composefs_ostree.remotes.record import Remote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from composefs_ostree.remotes.curl import CurlOptions

__all__ = ["tls_options"]

_CA_FILE = "SSL_CERT_FILE"
_CA_DIRECTORY = "SSL_CERT_DIR"
"""Names of OpenSSL's environment variables."""

_CA_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def tls_options(remote: Remote) -> CurlOptions:
    """Return what remote, environment and system say of TLS, and of HTTP/2, which is agreed on by it."""
    options = [*_authorities(remote), *_client_certificate(remote)]
    if remote.boolean("tls-permissive", False):
        options += [(pycurl.SSL_VERIFYPEER, 0), (pycurl.SSL_VERIFYHOST, 0)]
    if not remote.boolean("http2", True):
        options.append((pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1))
    return tuple(options)


def _authorities(remote: Remote) -> CurlOptions:
    """Return whom to trust: those that the remote names, else the environment's and the system's."""
    if remote.settings.get("tls-ca-path"):
        path = existing_path(remote, "tls-ca-path")
        # Debian's libcurl looks into the system's directory too unless it is told of another; in a file it finds none.
        return ((pycurl.CAINFO, path), (pycurl.CAPATH, path))
    options: list[tuple[int, Any]] = []
    if ca_file := os.environ.get(_CA_FILE):
        require_regular(ca_file, f"{_CA_FILE} has to name a file of certificates in PEM, by its absolute path")
    if ca_file := ca_file or next(filter(os.path.exists, _CA_FILES), None):
        options.append((pycurl.CAINFO, ca_file))
    if ca_directory := os.environ.get(_CA_DIRECTORY):
        options.append((pycurl.CAPATH, ca_directory))
    return tuple(options)


def _client_certificate(remote: Remote) -> CurlOptions:
    """Return the certificate that the remote names for us, and its key; raise FormatError for one without the other."""
    has_certificate = bool(remote.settings.get("tls-client-cert-path"))
    if has_certificate != bool(remote.settings.get("tls-client-key-path")):
        raise FormatError(
            f"{remote.origin}: remote {remote.name!r} has one of tls-client-cert-path and tls-client-key-path",
            hint="give both or neither; if one file holds certificate and key, name it twice",
            subject=remote.name,
        )
    if not has_certificate:
        return ()
    pair = (
        (pycurl.SSLCERT, existing_path(remote, "tls-client-cert-path")),
        (pycurl.SSLKEY, existing_path(remote, "tls-client-key-path")),
    )
    # OpenSSL else asks for a passphrase, wherever it finds a terminal; with one GnuTLS reads no key that needs none.
    return pair if "GnuTLS" in pycurl.version else (*pair, (pycurl.KEYPASSWD, ""))
