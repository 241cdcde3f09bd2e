"""Reading a regular file, and nothing else, by a path where anything may be."""

from __future__ import annotations

import io

from composefs_ext import files
from composefs_ext.errors import CorruptError, FormatError

__all__ = ["open_regular"]


def open_regular(path: str) -> io.FileIO:
    """Open a regular file unbuffered; raise OSError as open does, FormatError if it is something else."""
    try:
        return open(files.open_regular(path), "rb", buffering=0)
    except CorruptError:
        raise FormatError(f"{path} is not a regular file", subject=path) from None
