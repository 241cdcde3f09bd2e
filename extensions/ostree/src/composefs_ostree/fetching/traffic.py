"""How many bytes have come over the network, whoever fetched them.

Each process counts its own, as it has its own connections; a worker hands them over with what it has fetched.
"""

from __future__ import annotations

__all__ = ["Traffic", "traffic"]


class Traffic:
    """A count of bytes: those of answers' bodies, as they were sent."""

    def __init__(self) -> None:
        self.received = 0

    def take(self) -> int:
        """Return the count, to be added to another one, and begin anew."""
        received, self.received = self.received, 0
        return received


traffic = Traffic()
"""That of this process."""
