"""Directories below each other, more of them than a path can name."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["nest"]


def nest(top: Path, levels: int) -> None:
    """Make so many directories named d, each in the one before, the first in ``top``."""
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
