"""Whom to trust: certificates for one registry, in files where skopeo, podman and Docker look for them.

In a directory for a registry ``*.crt`` are further authorities, and ``*.cert`` with a ``*.key`` of the same name is
what the client shows.  Source: containers-certs.d(5).
"""

from __future__ import annotations

import io
import os

from composefs_ext.errors import FormatError, NotFoundError
from composefs_ext.tuples import NamedTuple
from composefs_oci.sources.regular import open_regular

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_oci.sources.access import Access

__all__ = ["Trust", "find_trust"]

_SYSTEM_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_MAX_FILE = 16 << 20
_PEM = b"-----BEGIN CERTIFICATE-----"


class Trust(NamedTuple):
    """``verify`` is the file of authorities, True for those of the library, False for whoever it is.

    ``client`` are the files of the client's certificate and key, ``directories`` hold further authorities, in files
    that are named by hashes, as OpenSSL has them.
    """

    verify: str | bool
    client: tuple[str, str] | None
    directories: tuple[str, ...] = ()


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
    system = os.environ.get("SSL_CERT_FILE") or next(filter(os.path.exists, _SYSTEM_FILES), None)
    added = [f"{directory}/{name}" for name in names if name.endswith(".crt")]
    directories = tuple(filter(None, os.environ.get("SSL_CERT_DIR", "").split(":")))
    return Trust(_joined(system, added) if added else system or True, client, directories)


def _directory(registry: str, access: Access) -> str | None:
    if access.cert_dir:
        if not os.path.isdir(access.cert_dir):
            raise NotFoundError(f"{access.cert_dir} is not a directory", subject=access.cert_dir)
        return access.cert_dir
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    places = (f"{home}/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")
    return next(filter(os.path.isdir, (f"{place}/{registry}" for place in places)), None)


def _joined(system: str | None, added: list[str]) -> str:
    """Write a file with the system's authorities and these; it is in the temporary directory, and dies with the run."""
    import tempfile

    contents = []
    for path in [*([system] if system else []), *added]:
        with io.BufferedReader(open_regular(path)) as file:
            contents.append(file.read(_MAX_FILE))
        if _PEM not in contents[-1]:
            raise FormatError(f"{path} holds no certificate in PEM format", subject=path)
    fd, name = tempfile.mkstemp(prefix="authorities-", suffix=".pem")
    with open(fd, "wb") as file:
        file.write(b"\n".join(contents))
    return name
