"""Held files that wait for the core's word that their content is still there.

An update holds nearly every file already.  The core is asked for some at a time, while the walk of the tree goes on, so
that it has little left to do at the walk's end.
"""

from __future__ import annotations

from collections import deque

from composefs_ostree.formats.fileheader import content_sizes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from composefs_ext import Core
    from composefs_ext.connection import Pending
    from composefs_ostree.formats.commit_stream import Entry

__all__ = ["Confirming"]

_FILES = 900
"""Files in one ``object.has``: with the rest of a directory they fit a message, which has 1,000 rows at most."""


class Confirming:
    """``waiting`` are the files to ask for, by id; put them there, and call ``send_if_many`` or ``send``."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.waiting: dict[bytes, Entry] = {}
        self._asked: deque[tuple[Pending[list[bool]], dict[bytes, Entry]]] = deque()

    def __bool__(self) -> bool:
        """Whether there are files that wait, or whose answer was not taken yet."""
        return bool(self.waiting or self._asked)

    @property
    def answered(self) -> bool:
        """Whether ``taken`` has something."""
        return bool(self._asked and self._asked[0][0].done)

    def send_if_many(self) -> None:
        """Ask the core as soon as it is worth a call."""
        if len(self.waiting) >= _FILES:
            self.send()

    def send(self) -> None:
        """Ask the core whether it has the content of the files that wait, in the sizes that their heads tell."""
        if self.waiting:
            files, self.waiting = self.waiting, {}
            heads, ids = zip(*files.values(), strict=True)
            self._asked.append((self._core.object_has(ids, content_sizes(heads)), files))

    def taken(self) -> Iterator[tuple[dict[bytes, Entry], list[bytes]]]:
        """Yield what the core has answered: the files whose content is there, and the ids of the others."""
        while self.answered:
            pending, files = self._asked.popleft()
            gone = [file_id for file_id, is_here in zip(files, pending.result(), strict=True) if not is_here]
            for file_id in gone:
                del files[file_id]
            yield files, gone
