"""Sealing objects: fs-verity, enabled on a file that nobody writes to any longer."""

from __future__ import annotations

import os
import time

from composefs.errors import BusyError
from composefs.linux import verity
from composefs.repository.store import Store

__all__ = ["OBJECT_MODE", "seal"]

OBJECT_MODE = 0o444
_WRITABLE_MODE = 0o644

# fork(2) in another thread keeps our writable descriptor open in the child until it calls exec.
_VERITY_DELAYS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)


def seal(fd: int, store: Store) -> bool:
    """Enable fs-verity on a file opened for reading; False if a writer does not go away, or it has it already.

    Its mode is that of objects then, if it had to be changed.  Raises UnsupportedError and ``OSError``.
    """
    try:
        return _seal(fd, store)
    except PermissionError:
        # The kernel asks for the right to write, which for an object only root has.
        os.fchmod(fd, _WRITABLE_MODE)
        try:
            return _seal(fd, store)
        finally:
            os.fchmod(fd, OBJECT_MODE)


def _seal(fd: int, store: Store) -> bool:
    for delay in _VERITY_DELAYS:
        try:
            return verity.enable(fd, store.algorithm)
        except BusyError:
            time.sleep(delay)
    return False
