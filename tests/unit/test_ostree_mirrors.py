"""Which of several mirrors a file is asked of, and what is told of one that none brings."""

from __future__ import annotations

from composefs_ext.errors import ExtError, NetworkError, NotFoundError
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.remotes.failures import TimedOutError
from composefs_ostree.remotes.mirrors import Mirrored


class Mirror:
    """A transport that ends every fetch with this error."""

    def __init__(self, error: ExtError) -> None:
        self.error = error
        self.asked = 0
        self._started: list[Fetch] = []

    def start(self, fetch: Fetch) -> None:
        self.asked += 1
        fetch.error = self.error
        self._started.append(fetch)

    def step(self) -> list[Fetch]:
        ended, self._started = self._started, []
        return ended

    def descriptors(self) -> tuple[list[int], list[int]]:
        return [], []

    def timeout(self) -> float | None:
        return 0.0

    def where(self, path: str) -> str:
        return path


def test_late_mirrors_are_not_asked_for_what_any_other_lacks() -> None:
    errors = [NetworkError("first"), NotFoundError("second"), NetworkError("third"), TimedOutError("late")]
    mirrors = [Mirror(error) for error in errors]
    together = Mirrored(mirrors, late=1)
    fetch = Fetch("file")
    together.start(fetch)
    while not together.step():
        pass
    assert [mirror.asked for mirror in mirrors] == [1, 1, 1, 0]
    assert fetch.error is errors[2]
