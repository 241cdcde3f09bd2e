"""How many bytes have come over the network, whoever fetched them, and what is to be told of it.

Each process counts its own, as it has its own connections; a worker hands them over with what it has fetched.
"""

from __future__ import annotations

__all__ = ["ToldWaits", "Traffic", "traffic"]


class Traffic:
    """A count of bytes, those of answers' bodies as they were sent.

    ``waits`` are the longer ones, each a line for the user and the seconds that it takes.
    """

    def __init__(self) -> None:
        self.received = 0
        self.waits: list[tuple[str, float]] = []

    def take(self) -> tuple[int, list[tuple[str, float]]]:
        """Return the count, to be added to another one, and the waits, and begin anew."""
        taken = self.received, self.waits
        self.received, self.waits = 0, []
        return taken

    def tell(self, line: str, seconds: float) -> None:
        """Add a wait."""
        self.waits.append((line, seconds))


class ToldWaits:
    """Until when the user knows of a wait: where many fail together, the first speaks for those that wait as long."""

    def __init__(self) -> None:
        self._until = 0.0

    def is_news(self, now: float, seconds: float) -> bool:
        """Tell whether a wait that begins ``now`` is to be told; if so, it counts as told."""
        if now + seconds / 2 < self._until:  # as long as the one before, but for what is added at random
            return False
        self._until = now + seconds
        return True


traffic = Traffic()
"""That of this process."""
