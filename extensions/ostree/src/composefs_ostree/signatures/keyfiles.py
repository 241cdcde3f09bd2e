"""Reading files and directories of keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from composefs_ext.errors import ExtError, PermissionDeniedError, from_exception
from composefs_ext.files import read_regular

__all__ = ["files_in", "read_keys"]

_MAX_KEYS = 16 << 20
"""Bytes of the largest file of keys."""


def read_keys(path: str) -> bytes:
    """Return a file's content; raise an ExtError that names it."""
    try:
        return read_regular(path, _MAX_KEYS)
    except (ExtError, OSError) as error:
        found = from_exception(error)
        message = found.message.removeprefix(f"{path}: ")
        raise type(found).at(path, f"cannot read the keys: {message}", hint=_remedy(found, path)) from None


def _remedy(error: ExtError, path: str) -> str | None:
    """Return what to do about a path that cannot be read: who has typed it may read it here, a remote's setting not."""
    if isinstance(error, PermissionDeniedError):
        from shlex import quote

        return f"check the owner and mode; what only a remote's settings name needs cfsctl --ext-read {quote(path)}"
    return error.hint


def files_in(path: str, *, suffix: str = "") -> Iterator[str]:
    """Yield ``path`` itself, or the regular files in the directory that it is, in order; hidden ones are left out."""
    try:
        names = sorted(os.listdir(path))
    except NotADirectoryError:
        yield path
        return
    except OSError as error:
        found = from_exception(error)
        raise type(found)(found.message, hint=_remedy(found, path), subject=path) from None
    for name in names:
        full = f"{path}/{name}"
        if name.endswith(suffix) and not name.startswith(".") and _is_file(full):
            yield full


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True  # reading it will say what is wrong
