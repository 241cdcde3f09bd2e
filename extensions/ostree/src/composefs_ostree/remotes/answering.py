"""Which of several mirrors to ask first: the best one that answers, when they are asked for the repository's config.

They are asked one after the other; but while one keeps us waiting, the next is asked too.  So mirrors that are silent
cost a few seconds each, however many there are, and one that is only slow is taken when its answer comes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from composefs_ext import Core
from composefs_ext.errors import CorruptError, ExtError, NetworkError, NotFoundError
from composefs_ostree.fetching.transport import Fetch, descriptors_of, timeout_of, wait
from composefs_ostree.remotes.failures import TimedOutError
from composefs_ostree.remotes.http import HttpTransport

__all__ = ["Search"]


class Search:
    """The mirrors that have been asked and have not answered, which are a ``Waitable``, and what became of others.

    ``check`` raises CorruptError, NotFoundError or NetworkError where a mirror has not brought its fetch, and any other
    error to end the search.  ``patience`` is after how many seconds the next mirror is asked too.
    """

    def __init__(
        self,
        core: Core,
        mirrors: Sequence[HttpTransport],
        fetches: Sequence[Fetch],
        check: Callable[[HttpTransport, Fetch], object],
        patience: float,
    ) -> None:
        self._core = core
        self._mirrors = mirrors
        self._fetches = fetches
        self._check = check
        self._patience = patience
        self._unasked = deque(range(len(mirrors)))
        self._asked: list[int] = []
        self._errors: dict[int, ExtError] = {}
        self._due = 0.0
        """When the next is to be asked too, 0 where there is nobody to wait for."""

    def run(self) -> tuple[list[int], list[int]]:
        """Return the order in which to ask mirrors from now on, and those that have kept us waiting in vain.

        In neither are those that answer and are no repository.  The first is one that has brought its fetch.  If there
        is none, the error of the first mirror is raised.
        """
        while self._unasked or self._asked:
            if self._unasked and monotonic() >= self._due:
                self._ask_next()
            for number in list(self._asked):
                if self._mirrors[number].step() and self._is_good(number):
                    silent = [number for number, error in self._errors.items() if isinstance(error, TimedOutError)]
                    late = sorted([*silent, *self._asked])
                    strangers = [other for other, error in self._errors.items() if not isinstance(error, NetworkError)]
                    left_out = {number, *late, *strangers}
                    return [number, *(other for other in range(len(self._mirrors)) if other not in left_out)], late
            if self._asked and wait(self, [self._core.fileno()]):
                self._core.pump(0)
        raise self._errors[0]

    def _ask_next(self) -> None:
        if self._due:  # it has come: the one that was asked last keeps us waiting, and has not failed
            late = self._asked[-1]
            where = self._mirrors[late].where(self._fetches[late].path)
            self._core.log("warning", f"{where}: no answer for {self._patience:g} s; trying the next mirror too")
        number = self._unasked.popleft()
        self._asked.append(number)
        self._mirrors[number].start(self._fetches[number])
        self._due = monotonic() + self._patience

    def _is_good(self, number: int) -> bool:
        is_last = number == self._asked[-1]
        self._asked.remove(number)
        try:
            self._check(self._mirrors[number], self._fetches[number])
        except (CorruptError, NotFoundError, NetworkError) as error:
            self._errors[number] = error
            if is_last:  # after another one the next was asked already
                self._due = 0.0
            if self._unasked:
                self._core.log("warning", f"{error.message}; trying the next mirror")
            return False
        return True

    def descriptors(self) -> tuple[list[int], list[int]]:
        """Return the sockets of those that were asked."""
        return descriptors_of([self._mirrors[number] for number in self._asked])

    def timeout(self) -> float | None:
        """Return when the first of those has something to do, or the next is to be asked."""
        soon = timeout_of([self._mirrors[number] for number in self._asked])
        if not self._unasked:
            return soon
        until_next = max(0.0, self._due - monotonic())
        return until_next if soon is None else min(soon, until_next)
