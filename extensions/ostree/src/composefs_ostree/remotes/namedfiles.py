"""Files of certificates, keys and passwords, which a remote, the environment or the user names by their paths.

What is wrong with one is told before curl has it, which would say less, or wait for a named pipe for ever.
"""

from __future__ import annotations

import os

from composefs_ext.errors import (
    CorruptError,
    FormatError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
    UsageError,
)
from composefs_ext.files import open_regular, read_regular
from composefs_ostree.remotes.record import Remote

__all__ = ["existing_path", "read_secret", "require_regular"]

_SECRET_BYTES = 64 << 10


def existing_path(remote: Remote, key: str) -> str:
    """Return the path in the setting ``key``.

    Raises UnsupportedError for a token, and PermissionDeniedError, NotFoundError or UsageError for what cannot be read.
    """
    path = remote.settings[key]
    if path.startswith("pkcs11:"):
        raise UnsupportedError(
            f"{remote.origin}: {key} of remote {remote.name!r} is on a token", hint="only files in PEM can be used"
        )
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))  # access(2) knows nothing of confinement
    except PermissionError:
        raise _denied(path) from None
    except OSError:
        raise NotFoundError.at(
            path, f"{key} of remote {remote.name!r} cannot be read", hint=f"see {remote.origin}"
        ) from None
    require_regular(path, f"{key} of remote {remote.name!r} has to name one: see {remote.origin}")
    return path


def require_regular(path: str, hint: str | None = None) -> None:
    """Raise UsageError for what is there and is no regular file."""
    try:
        os.close(open_regular(path))
    except OSError:
        return  # of which it says what is wrong
    except CorruptError as error:
        raise UsageError.at(path, error.message, hint=hint) from None


def read_secret(path: str) -> str:
    """Return the text of a file; raise CorruptError, FormatError, PermissionDeniedError, UsageError or OSError."""
    require_regular(path)
    try:
        return read_regular(path, _SECRET_BYTES).decode()
    except CorruptError as error:
        raise CorruptError.at(path, error.message) from None
    except PermissionError:
        raise _denied(path) from None
    except UnicodeDecodeError:
        raise FormatError.at(path, "it is not text") from None


def _denied(path: str) -> PermissionDeniedError:
    from shlex import quote

    way = f"cfsctl --ext-read {quote(path)} lets them read it"
    return PermissionDeniedError.at(
        path, "permission denied", hint=f"extensions are confined: {way}; else check its owner and mode"
    )
