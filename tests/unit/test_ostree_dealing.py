"""Which worker gets what of a static delta: parts, and the large files beside them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

from composefs.protocol.limits import Limits
from composefs_ext.puts import LEAST
from composefs_ostree.fetching.fetch_queue import FetchQueue
from composefs_ostree.fetching.worker import HANDOVER, Workers
from composefs_ostree.pulling.dealing import STAGED_BYTES, deal

if TYPE_CHECKING:
    from composefs_ostree.deltas.applying import Applying

MB = 1_000_000


class Delta:
    """As much of a delta as dealing asks for: parts of one object each."""

    def __init__(self, count: int) -> None:
        self.left = count

    @property
    def has_parts(self) -> bool:
        return self.left > 0

    def next_part(self) -> tuple[int, int]:
        self.left -= 1
        return self.left, 1


class Dealer:
    """Two workers that do nothing; ``end`` tells that one is done with what it had."""

    def __init__(self, parts: int, sizes: dict[bytes, int]) -> None:
        self.workers = Workers(Mock(), Mock())
        self.workers.most = 2
        self.queue = FetchQueue(lambda: sizes, 2)
        for file_id in sizes:
            self.queue.add(file_id)
        self.delta: Any = Delta(parts)
        self.idle = [self._worker(), self._worker()]
        self.workers._workers = list(self.idle)

    def _worker(self) -> Any:
        worker = SimpleNamespace(outstanding=0, is_on_part=False, has=[])

        def deal_files(ids: list[bytes]) -> None:
            worker.outstanding, worker.is_on_part, worker.has = (
                worker.outstanding + len(ids),
                False,
                [*worker.has, *ids],
            )

        def deal_part(number: int, count: int) -> None:
            worker.outstanding, worker.is_on_part, worker.has = count, True, number

        worker.deal, worker.deal_part = deal_files, deal_part
        return worker

    def turn(self, staged: int = 0) -> list[Any]:
        """Deal while so many bytes are staged; return what each has: the number of a part, or ids."""
        delta: Applying = self.delta
        deal(self.workers, self.queue, Mock(bytes=staged), delta)
        return [worker.has for worker in self.idle]

    def end(self, number: int) -> None:
        worker = self.idle[number]
        if not worker.is_on_part:
            for file_id in worker.has:
                self.queue.arrived(file_id)
        worker.outstanding, worker.has = 0, []


def file_ids(count: int) -> list[bytes]:
    return [bytes([number]) * 32 for number in range(count)]


def test_a_part_is_not_the_last() -> None:
    """While there are many bytes in files, one worker has parts; the last files are for when there is none."""
    first, second, third = file_ids(3)
    dealer = Dealer(4, {first: 100 * MB, second: 40 * MB, third: 20 * MB})
    assert dealer.turn() == [3, [first]]
    dealer.end(1)
    assert dealer.turn() == [3, 2]
    dealer.end(0)
    assert dealer.turn() == [1, 2]
    dealer.end(1)
    assert dealer.turn() == [1, 0]
    dealer.end(0)
    assert dealer.turn() == [[second], 0]
    dealer.end(1)
    assert dealer.turn() == [[second], [third]]


def test_many_small_files_are_not_left_for_the_end() -> None:
    """They keep the core busy, which has nothing to do while a part is decoded."""
    ids = file_ids(HANDOVER + 1)
    dealer = Dealer(2, dict.fromkeys(ids, 1 * MB))
    assert dealer.turn() == [1, ids]
    dealer.end(1)
    assert dealer.turn() == [1, 0]


def test_nothing_is_handed_over_while_the_core_has_much_to_take() -> None:
    ids = file_ids(2)
    for parts in (0, 2):
        dealer = Dealer(parts, dict.fromkeys(ids, 1 * MB))
        assert dealer.turn(STAGED_BYTES) == [[], []]
        assert dealer.turn(STAGED_BYTES - 1) != [[], []]


def test_a_large_file_waits_for_room_beside_what_is_staged() -> None:
    [large] = file_ids(1)
    dealer = Dealer(0, {large: 200 * MB})
    assert dealer.turn(STAGED_BYTES - 1) == [[], []]
    assert dealer.turn() == [[large], []]


def test_a_file_that_is_larger_than_the_room_comes_all_the_same() -> None:
    [large] = file_ids(1)
    assert Dealer(0, {large: 1000 * MB}).turn() == [[large], []]


def test_the_smallest_files_that_are_staged_ahead_are_fewer_than_the_core_allows() -> None:
    assert Limits().staging_files > 4 * (STAGED_BYTES // LEAST)
