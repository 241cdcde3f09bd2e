"""Where the lane keeps what is slow to make and the same in every run, outside of the tree."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["cached"]

# Looked up when this module is imported: each test has a HOME of its own.
_DIRECTORY = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "composefs-tests"
_KEPT = 3


def cached(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the directory KIND-KEY of the cache; if it is not there yet, ``make`` fills it.

    It appears when it is whole, so two runs may make it at once.  Of each kind the few used last are kept.
    """
    found = _DIRECTORY / f"{kind}-{key}"
    if not found.is_dir():
        _DIRECTORY.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=_DIRECTORY))
        try:
            make(new)
            try:
                new.rename(found)
            except OSError:
                if not found.is_dir():
                    raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    os.utime(found)
    others = sorted(_DIRECTORY.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in others[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return found
