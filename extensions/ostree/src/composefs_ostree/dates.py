"""Seconds since 1970 as people read them, in UTC."""

from __future__ import annotations

import time

__all__ = ["date", "day"]


def date(timestamp: int) -> str:
    """Return date and time; the seconds as they are if no calendar reaches that far.

    A commit's are unsigned: before 1970 they are those of two's complement, as ostree writes and shows them.
    """
    seconds = timestamp - (timestamp >> 63 << 64)
    return _text("%Y-%m-%d %H:%M:%S UTC", seconds) or f"{timestamp} s after 1970-01-01"


def day(seconds: float) -> str:
    """Return the date; the seconds for what the C library, of 32 bits perhaps, has none."""
    return _text("%Y-%m-%d", seconds) or f"{seconds:.0f} s after 1970-01-01"


def _text(form: str, seconds: float) -> str:
    try:
        return time.strftime(form, time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return ""
