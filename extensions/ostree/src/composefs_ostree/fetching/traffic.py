"""How many bytes have come over the network, whoever fetched them, and what is to be told of it.

Each process counts its own, as it has its own connections; a worker hands them over with what it has fetched.
"""

from __future__ import annotations

__all__ = ["Traffic", "traffic"]


class Traffic:
    """A count of bytes, those of answers' bodies as they were sent; ``lines`` are for the user, about longer waits."""

    def __init__(self) -> None:
        self.received = 0
        self.lines: list[str] = []

    def take(self) -> tuple[int, list[str]]:
        """Return the count, to be added to another one, and the lines, and begin anew."""
        taken = self.received, self.lines
        self.received, self.lines = 0, []
        return taken

    def tell(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)


traffic = Traffic()
"""That of this process."""
