"""How much of what an extension says of its progress reaches the user."""

from __future__ import annotations

__all__ = ["ProgressLimiter"]

_MAX_IDS = 10_000
_PER_SECOND_IN_ALL = 1000


class ProgressLimiter:
    """Decides which progress messages pass: ``per_second`` for one id, and a bound for all of them together.

    What is dropped is superseded by the next message of its id.  The beginning and the end of a thing pass unless they
    are repeated at once.
    """

    def __init__(self, per_second: int) -> None:
        self._interval = 1 / per_second
        self._last: dict[str, tuple[float, str]] = {}
        self._second = 0.0
        self._count = 0

    def passes(self, name: str, kind: str, now: float) -> bool:
        """Say whether a message of ``kind`` for the id ``name`` passes at time ``now``, in seconds."""
        if now - self._second >= 1:
            self._second, self._count = now, 0
        last = self._last.get(name)
        if last is None:
            if len(self._last) >= _MAX_IDS:
                self._last.clear()
        elif now - last[0] < self._interval and (kind == "progress" or kind == last[1]):
            return False
        if self._count >= _PER_SECOND_IN_ALL:
            return False
        self._count += 1
        self._last[name] = (now, kind)
        return True
