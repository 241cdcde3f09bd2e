"""What capabilities this process has, by which root in a container is less than root (capabilities(7))."""

from __future__ import annotations

__all__ = ["SETGID", "SETUID", "effective_capabilities"]

SETGID = 1 << 6
SETUID = 1 << 7


def effective_capabilities() -> int:
    """Return the set of those in effect; raise OSError without /proc."""
    with open("/proc/self/status", "rb") as status:
        return next((int(line[7:], 16) for line in status if line.startswith(b"CapEff:")), 0)
