"""Reading a regular file, and nothing else, by a path where anything may be."""

from __future__ import annotations

import io

from composefs_ext import files
from composefs_ext.errors import CorruptError, FormatError

__all__ = ["open_regular"]


def open_regular(path: str, remedy: str = "put a file there, or nothing") -> io.FileIO:
    """Open a regular file unbuffered; raise OSError as open does, FormatError with this remedy if it is none."""
    try:
        return open(files.open_regular(path), "rb", buffering=0)
    except CorruptError:
        raise FormatError(f"{path} is not a regular file", hint=remedy, subject=path) from None
