"""User namespaces, by the files that stand for them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from composefs.errors import from_os_error

__all__ = ["user_namespace"]


@contextlib.contextmanager
def user_namespace(path: str | None) -> Iterator[int | None]:
    """Have /proc/PID/ns/user, or a file that it is bound to, open; None for None.  Raises NotFoundError and others."""
    if path is None:
        yield None
        return
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise from_os_error(error, f"opening the user namespace {path}") from error
    try:
        yield fd
    finally:
        os.close(fd)
