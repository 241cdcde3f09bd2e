"""The cache of an extension: a directory that it finds again in its next run in the same repository.

What is in a cache is believed.  So there is none where anybody else could have put something into it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from composefs.ext.trust import distrust

if TYPE_CHECKING:
    from composefs.ext.account import Account
    from composefs.repository.store import Store

__all__ = ["CACHE", "cache_directory", "cache_name"]

CACHE = "/var/cache/composefs"
"""Where the caches are of extensions that run under an account of their own; their homes are not ours to fill."""

_MAX_NAME = 255
"""Bytes of a file's name (NAME_MAX)."""


def cache_directory(extension: str, store: Store | None, base: str | None, account: Account | None) -> str | None:
    """Make the cache of the extension of this name for a repository, and return its path; None if there can be none.

    ``base`` is the directory of all caches, None for the usual one: the user's, or that of the ``account``.
    """
    if base is None:
        base = _usual_base(account)
    if base is None:
        return None
    parent = f"{base}/ext/{extension}"
    directory = f"{parent}/{'none' if store is None else cache_name(store.path, store.algorithm.name)}"
    way = directory if account is None else parent  # the directory itself is the account's
    if not _is_out_of_reach(way, missing=True):
        return None
    try:
        _make_parents(parent, 0o700 if account is None else 0o711)
        os.makedirs(directory, 0o700, exist_ok=True)
        # Once more: what was missing somebody else may have made first, or have taken away since.
        if not _is_out_of_reach(way, missing=False):
            return None
        if account is not None:
            os.chown(directory, account.uid, account.gid, follow_symlinks=False)
            return directory if account.reaches(parent) else None
    except OSError:
        return None
    return directory if os.access(directory, os.W_OK) else None


def _usual_base(account: Account | None) -> str | None:
    if account is not None:
        return f"{CACHE}/{account.uid}"
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not home.startswith("/"):  # to be ignored, says the XDG Base Directory Specification
        home = os.path.join(os.environ.get("HOME", ""), ".cache")
    return f"{home}/composefs" if home.startswith("/") else None


def cache_name(repository: str, algorithm: str) -> str:
    """Return the file name that stands for a repository: its path, escaped, and the algorithm of its ids.

    A repository that is made anew may have another algorithm.  A digest of both stands for them only where they are too
    long for a name: hashlib takes 4 ms to load.
    """
    path = os.path.realpath(repository).strip("/").replace("%", "%25").replace("/", "%2F")
    name = f"{path}.{algorithm}"
    if len(os.fsencode(name)) <= _MAX_NAME:
        return name
    import hashlib

    return hashlib.sha256(os.fsencode(name)).hexdigest()


def _make_parents(directory: str, mode: int) -> None:
    """Make what is missing, with this mode whatever the umask is: an account gets through, nobody else may write."""
    if os.path.isdir(directory):
        return
    _make_parents(os.path.dirname(directory), mode)
    os.makedirs(directory, mode, exist_ok=True)
    os.chmod(directory, mode)


def _is_out_of_reach(directory: str, *, missing: bool) -> bool:
    """Tell whether nobody else can write to a directory, or exchange it or one above it for another.

    ``missing`` is the answer for one that is not there, if all that is there of the way to it is out of reach.
    """
    try:
        return distrust(directory, os.geteuid(), os.environ.get("HOME") or "/") is None
    except FileNotFoundError:
        return missing
    except OSError:
        return False
