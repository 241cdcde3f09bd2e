"""Staged files on their way to the core, a lot at a time.

    puts = Puts(core)
    puts.add(row, name, size)        # for each file as it is complete
    puts.send()                      # now and then
    for row, stored in puts.taken(): # what the core has answered
        ...
    for row, stored in puts.rest():  # at the end, waiting
        ...

While the core is busy, lots are large; while it is not, each file leaves at once.  Answers come in the order in which
files were added.  A pack is removed when the last of its rows is answered.
"""

from __future__ import annotations

import os
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from composefs_ext.connection import Pending
    from composefs_ext.core import Core
    from composefs_ext.rows import FileRow, Stored

    _Row = tuple[Any, str, int, int | None]

__all__ = ["Puts"]

CALLS = 4
FILES = 128
"""The most ``object.put`` without an answer, and files in one call.

A call with fewer files is made only while less than half as many are out.
"""

LEAST = 16 << 10
"""Bytes that a staged file counts for at least; else there could be more small ones than staging may have."""


class Puts:
    """Gives staged files to the core, and tells what became of each; a *row* is whatever tells you which file it is.

    ``bytes`` counts those of files that were added and are not taken yet.  Stage no more while that is above a bound of
    your own, and you keep within the core's limits of bytes and files.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._rows: deque[_Row] = deque()
        self._sent: deque[tuple[Pending[list[Stored]], list[_Row]]] = deque()
        self._packs: dict[str, int] = {}  # how many of their rows are not answered yet
        self.bytes = 0

    def __bool__(self) -> bool:
        """Whether anything was added and not taken yet."""
        return bool(self._rows or self._sent)

    @property
    def answered(self) -> bool:
        """Whether :meth:`taken` has something: ask after sending, as that may have read answers."""
        return bool(self._sent and self._sent[0][0].done)

    def add(self, row: Any, name: str, size: int, offset: int | None = None) -> None:
        """Add the staged file ``name`` of ``size`` bytes; with ``offset``, the ``size`` bytes from there on of a pack.

        All rows of a pack have to be added before any answer is taken.
        """
        self._rows.append((row, name, size, offset))
        self.bytes += _weight(size, offset)
        if offset is not None:
            self._packs[name] = self._packs.get(name, 0) + 1

    def send(self) -> None:
        """Send full lots, and smaller ones while few are out; this waits only while the connection is full."""
        rows = self._rows
        while rows and len(self._sent) < (CALLS if len(rows) >= FILES else CALLS // 2):
            lot = [rows.popleft() for _ in range(min(FILES, len(rows)))]
            files: list[FileRow] = [
                {"name": name, "size": size} if offset is None else {"name": name, "size": size, "offset": offset}
                for _, name, size, offset in lot
            ]
            self._sent.append((self._core.object_put(files), lot))

    def taken(self) -> Iterator[tuple[Any, Stored]]:
        """Yield each row whose answer is here, and what the core made of its file; raise the first error."""
        while self.answered:
            pending, lot = self._sent.popleft()
            for (row, name, size, offset), stored in zip(lot, pending.result(), strict=True):
                self.bytes -= _weight(size, offset)
                if offset is not None:
                    self._answered(name)
                yield row, stored

    def _answered(self, pack: str) -> None:
        left = self._packs[pack] = self._packs[pack] - 1
        if not left:
            del self._packs[pack]
            os.unlink(self._core.staging.path_of(pack))

    def rest(self, allowed: int = -1) -> Iterator[tuple[Any, Stored]]:
        """Yield as :meth:`taken` does, waiting while more than ``allowed`` bytes are left (negative: all)."""
        while self and self.bytes > allowed:
            self.send()
            if not self.answered:
                self._core.pump(None)
            yield from self.taken()


def _weight(size: int, offset: int | None) -> int:
    return max(size, LEAST) if offset is None else size
