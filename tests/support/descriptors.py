"""Descriptors that a test leaves open in its own process."""

from __future__ import annotations

import gc
import os

__all__ = ["descriptors", "left_open"]


def descriptors() -> set[str]:
    """Return the numbers of the open ones, and that of the listing itself."""
    return set(os.listdir("/proc/self/fd"))


def left_open(before: set[str]) -> set[str]:
    """Return those that were not open before, nor are held by a cycle alone, as by an error that speaks of a map.

    What a test before this one has left so may be closed meanwhile.
    """
    if descriptors() - before:
        gc.collect()
    return descriptors() - before
