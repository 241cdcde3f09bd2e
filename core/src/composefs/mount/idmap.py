"""User namespaces, by the files that stand for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from composefs.linux.files import opened

__all__ = ["user_namespace"]


@contextlib.contextmanager
def user_namespace(path: str | None) -> Iterator[int | None]:
    """Have /proc/PID/ns/user, or a file that it is bound to, open; None for None.  Raises NotFoundError and others."""
    if path is None:
        yield None
        return
    with opened(path, f"opening the user namespace {path}") as fd:
        yield fd
