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


def ends(together: Mirrored) -> Fetch:
    """Fetch a file that no mirror brings."""
    fetch = Fetch("file")
    together.start(fetch)
    while not together.step():
        pass
    return fetch


def test_late_mirrors_are_not_asked_for_what_any_other_lacks() -> None:
    errors = [NetworkError("first"), NotFoundError("second"), NetworkError("third"), TimedOutError("late")]
    mirrors = [Mirror(error) for error in errors]
    fetch = ends(Mirrored(mirrors, late=1))
    assert [mirror.asked for mirror in mirrors] == [1, 1, 1, 0]
    assert fetch.error is errors[1]


def test_whichever_was_asked_first_the_best_one_s_word_is_told() -> None:
    """Of many files under way, the first that fails ends a pull: which that is must not decide what is said."""
    errors = [NetworkError("best"), NetworkError("nobody listens there"), TimedOutError("late")]
    together = Mirrored([Mirror(error) for error in errors])
    assert [ends(together).error for _ in range(4)] == [errors[0]] * 4
