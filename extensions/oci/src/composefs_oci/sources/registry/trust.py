"""Whom to trust: certificates for one registry, in files where skopeo, podman and Docker look for them.

In a directory for a registry ``*.crt`` are further authorities, and ``*.cert`` with a ``*.key`` of the same name is
what the client shows.  Source: containers-certs.d(5).
"""

from __future__ import annotations

import io
import os
import ssl

from composefs_ext.errors import ExtError, FormatError, NotFoundError, TooLargeError, from_exception
from composefs_ext.tuples import NamedTuple
from composefs_oci.sources.access import Access
from composefs_oci.sources.regular import open_regular

__all__ = ["Trust", "find_trust", "show", "trusting"]

_CERT_FILE = "SSL_CERT_FILE"
_SYSTEM_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_MAX_FILE = 16 << 20
"""Bytes of one of a registry's own files; the system's bundle, and what a user names in its place, has no bound."""


class Trust(NamedTuple):
    """Whom to trust, and what to show to them.  All are paths."""

    verify: bool
    """False: whoever it is."""
    client: tuple[str, str] | None
    """The files of the client's certificate and key, if it has one."""
    bundle: str | None = None
    """The file with the authorities; None: those of the library."""
    added: tuple[str, ...] = ()
    """Files with further authorities."""
    directories: tuple[str, ...] = ()
    """Directories with further ones, in files that are named by hashes, as OpenSSL has them."""


def find_trust(registry: str, access: Access) -> Trust:
    """Return what holds for a registry, HOST[:PORT]; raise NotFoundError or FormatError."""
    directory = _directory(registry, access)
    names = sorted(os.listdir(directory)) if directory else []
    client = None
    for name in names:
        stem, suffix = os.path.splitext(name)
        if suffix == ".cert":
            if f"{stem}.key" not in names:
                raise NotFoundError(f"{directory}/{name} has no {stem}.key beside it", subject=f"{directory}/{name}")
            client = (f"{directory}/{name}", f"{directory}/{stem}.key")
            for path in client:
                open_regular(path).close()  # the library that reads them would wait for a named pipe
    if not access.tls_verify:
        return Trust(False, client)
    system = os.environ.get(_CERT_FILE) or next(filter(os.path.exists, _SYSTEM_FILES), None)
    added = tuple(f"{directory}/{name}" for name in names if name.endswith(".crt"))
    directories = tuple(filter(None, os.environ.get("SSL_CERT_DIR", "").split(":")))
    return Trust(True, client, system, added, directories)


def trusting(trust: Trust) -> ssl.SSLContext:
    """Return how to speak TLS with those that are trusted; raise an error that names the file that is at fault."""
    files = (*filter(None, [trust.bundle]), *trust.added)
    for path in files:
        with _open(path) as file:  # the library that reads them would wait for a named pipe
            if path in trust.added and os.fstat(file.fileno()).st_size > _MAX_FILE:
                raise _unusable(path, TooLargeError(f"{path} has more than {_MAX_FILE} bytes"))
    try:
        context = ssl.create_default_context(cafile=trust.bundle)
        for path in trust.added:
            context.load_verify_locations(path)
        # Python 3.13 refuses authorities without the extensions of RFC 5280, as many are that people make themselves;
        # skopeo and libcurl take them.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        for directory in trust.directories:
            context.load_verify_locations(capath=directory)
    except ssl.SSLError as error:
        for path in files:
            _check_certificates(path)
        raise ExtError(f"the certificates of authorities cannot be read: {error.reason}") from None
    return context


def show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have a client's certificate shown; raise FormatError if it cannot be."""

    def no_passphrase() -> str:  # else OpenSSL asks for it at a terminal
        raise FormatError(f"{key} has a passphrase", hint="take it off: openssl pkey -in FILE -out FILE", subject=key)

    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        why = f": {error.reason.replace('_', ' ').lower()}" if error.reason else ""
        raise FormatError(
            f"{certificate} and {key} are not a certificate and its key{why}",
            hint="both have to be in PEM",
            subject=certificate,
        ) from None


def _open(path: str) -> io.FileIO:
    """Open a file of authorities."""
    try:
        return open_regular(path)
    except (OSError, FormatError) as error:
        raise _unusable(path, error) from None


def _check_certificates(path: str) -> None:
    """Raise FormatError for a file that does not hold certificates."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise _unusable(path, FormatError(f"{path} holds no certificate in PEM format")) from None


def _unusable(path: str, error: OSError | ExtError) -> ExtError:
    """Return the error for a file of authorities, with the variable that names it."""
    hint = None
    if path == os.environ.get(_CERT_FILE):
        hint = f"{_CERT_FILE} has to name a file of certificates in PEM, by its absolute path"
    told = from_exception(error)
    return type(told)(told.message, hint=hint or told.hint, subject=path)


def _directory(registry: str, access: Access) -> str | None:
    if access.cert_dir:
        if not os.path.isdir(access.cert_dir):
            raise NotFoundError(f"{access.cert_dir} is not a directory", subject=access.cert_dir)
        return access.cert_dir
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    places = (f"{home}/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")
    return next(filter(os.path.isdir, (f"{place}/{registry}" for place in places)), None)
