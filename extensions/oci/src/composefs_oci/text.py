"""Sizes for people, as composefs-rs prints them."""

from __future__ import annotations

__all__ = ["human_bytes"]

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def human_bytes(size: int) -> str:
    """Return bytes in the largest unit of which there is one, ``12 B`` or ``12.34 MiB``."""
    if size < 1024:
        return f"{size} B"
    power = min((size.bit_length() - 1) // 10, len(_UNITS))
    return f"{size / 1024**power:.2f} {_UNITS[power - 1]}"
