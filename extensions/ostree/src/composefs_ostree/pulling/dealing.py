"""Which worker gets what: the files that wait to be fetched, and the parts of a static delta.

How far workers run ahead of the core is bounded: nothing more is handed over while more than ``STAGED_BYTES`` of staged
files have no answer yet.
"""

from __future__ import annotations

from composefs_ostree.fetching.worker import HANDOVER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext.puts import Puts
    from composefs_ostree.deltas.applying import Applying
    from composefs_ostree.fetching.fetch_queue import FetchQueue
    from composefs_ostree.fetching.worker import Workers

__all__ = ["STAGED_BYTES", "deal"]

STAGED_BYTES = 128 << 20
"""Bytes of staged files without an answer, above which workers get nothing more to do."""

_LAST_BYTES = 64 << 20
"""Bytes of large files that are left for when no part waits: a part takes as long as they, and cannot be shared."""

_BACKLOG = 128
"""Files that wait before another worker is forked for them, which takes as long as fetching half as many."""


def deal(workers: Workers, to_fetch: FetchQueue, puts: Puts, delta: Applying | None) -> None:
    """Hand parts and files to the workers, to the least loaded first; start another one while all are busy."""
    if delta is not None:
        _deal_parts(workers, to_fetch, puts, delta)
    to_fetch.staged = puts.bytes
    while to_fetch and puts.bytes < STAGED_BYTES:
        worker = workers.for_files(_busy(to_fetch))
        if worker is None:
            return
        ids = to_fetch.take(HANDOVER)
        if not ids:
            return
        worker.deal(ids)


def _busy(to_fetch: FetchQueue) -> int | None:
    """Return with how many files all workers are busy, so that another one is worth its start; None if none is."""
    if to_fetch.has_large:
        return 1  # as that keeps a worker busy: beside a static delta, there is often nothing but large ones
    return HANDOVER if len(to_fetch) > _BACKLOG else None


def _deal_parts(workers: Workers, to_fetch: FetchQueue, puts: Puts, delta: Applying) -> None:
    """Give parts to workers that have nothing to do; while there are many files to fetch, to half of them.

    Decoding a part takes much memory and gives the core nothing to do, so that it is not for all at a time.
    """
    while delta.has_parts and puts.bytes < STAGED_BYTES:
        has_many = to_fetch.large_bytes > _LAST_BYTES or len(to_fetch) > HANDOVER
        if has_many and workers.on_parts and 2 * (workers.on_parts + 1) > workers.most:
            break
        worker = workers.for_part()
        if worker is None:
            break
        worker.deal_part(*delta.next_part())
    to_fetch.parallel = max(workers.most - workers.on_parts, 1)
