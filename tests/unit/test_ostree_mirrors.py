"""Which of several mirrors a file is asked of, and what is told of one that none brings."""

from __future__ import annotations

import pytest

from composefs_ext.errors import ExtError, NetworkError, NotFoundError
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.remotes.failures import TimedOutError
from composefs_ostree.remotes.mirrors import MAX_MIRRORS, Mirrored, parse_mirror_list


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
    errors = [TimedOutError("late"), NetworkError("nobody listens there")]
    assert ends(Mirrored([Mirror(error) for error in errors])).error is errors[1]


@pytest.mark.parametrize(("known", "asked"), [(0, 5), (2, 5)])
def test_when_five_mirrors_were_late_no_other_is_asked(known: int, asked: int) -> None:
    mirrors = [Mirror(TimedOutError("late")) for _ in range(7 + known)]
    fetch = ends(Mirrored(mirrors, late=known))
    assert [mirror.asked for mirror in mirrors] == [1] * asked + [0] * (len(mirrors) - asked)
    assert fetch.error is mirrors[0].error


@pytest.mark.parametrize(("late", "others"), [(0, 2), (1, 1), (2, 0)])
def test_each_mirror_that_is_not_late_is_first_once(late: int, others: int) -> None:
    together = Mirrored([Mirror(NetworkError("down")) for _ in range(3)], late=late)
    assert [together.next_mirror() for _ in range(others + 1)] == [True] * others + [False]


def test_a_file_is_tried_as_often_at_the_next_mirror() -> None:
    mirrors = [Mirror(NetworkError("first")), Mirror(NetworkError("second"))]
    together = Mirrored(mirrors)
    fetch = Fetch("file")
    together.start(fetch)
    fetch.attempts = 3
    assert together.step() == [fetch]
    assert [mirror.asked for mirror in mirrors] == [1, 1]
    assert fetch.attempts == 0


def test_the_list_is_of_the_first_urls_in_it() -> None:
    urls = [f"https://mirror/{number}" for number in range(MAX_MIRRORS + 1)]
    text = "\n".join(f"# {url}\n  {url}\t" for url in urls)
    assert parse_mirror_list(f"{urls[0]}\n{text}".encode()) == urls[:-1]
