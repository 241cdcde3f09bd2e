"""Held files that wait for the core's word that their content is still there.

An update holds nearly every file already.  Of all that a base refers to the core tells the sizes in one answer, which
it makes while the walk of the tree goes on.  For others, and for what is not as the base has it, it is asked some at a
time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from itertools import compress

from composefs_ext import Core, Stream
from composefs_ext.connection import Pending
from composefs_ext.errors import NotFoundError
from composefs_ostree.formats.commit_stream import Entry
from composefs_ostree.formats.fileheader import content_sizes

__all__ = ["BaseSizes", "Confirming"]

_FILES = 900
"""Files in one ``object.has``: with the rest of a directory they fit a message, which has 1,000 rows at most."""


class BaseSizes:
    """The sizes of all objects that bases refer to: each base is asked for once, of however many commits it is one.

    What is here stays here, as nothing is collected during a run; what was gone may have been stored since.
    """

    def __init__(self) -> None:
        self._bases: set[str] = set()
        self._coming: deque[tuple[Stream, Pending[Stream]]] = deque()
        self._sizes: dict[str, int | None] = {}

    def knows(self, base: str) -> bool:
        """Whether those of the base with this name were asked for."""
        return base in self._bases

    def expect(self, base: str, stream: Stream, answer: Pending[Stream]) -> None:
        """Take an answer that is to come, with the sizes of what the stream of a base refers to."""
        self._bases.add(base)
        self._coming.append((stream, answer))

    @property
    def is_coming(self) -> bool:
        """Whether there are answers that were not taken."""
        return bool(self._coming)

    @property
    def has_come(self) -> bool:
        """Whether there are such answers, and all are here."""
        return bool(self._coming) and self._coming[-1][1].done

    def taken(self) -> Mapping[str, int | None]:
        """Take the answers; return the sizes of all, None for what was not here."""
        while self._coming:
            stream, answer = self._coming.popleft()
            try:
                told = answer.result()
            except NotFoundError:
                continue  # somebody has taken the name away between the two questions
            if told.id == stream.id:  # else it was given to another stream
                self._sizes.update(zip(stream.object_refs, told.sizes, strict=True))
        return self._sizes


class Confirming:
    """The files that wait for the core's word.

    Put those to ask for into ``waiting``, by their ids, and call :meth:`send_if_many` or :meth:`send`.
    """

    def __init__(self, core: Core, sizes: BaseSizes) -> None:
        self._core = core
        self.waiting: dict[bytes, Entry] = {}
        self._sizes = sizes
        self._here: dict[bytes, Entry] = {}
        self._asked: deque[tuple[Pending[list[bool]], dict[bytes, Entry]]] = deque()

    def __bool__(self) -> bool:
        """Whether there are files that wait, or whose answer was not taken yet."""
        return bool(self.waiting or self._here or self._asked)

    @property
    def answered(self) -> bool:
        """Whether ``taken`` has something, or has to send something."""
        return bool(self._here or (self.waiting and self._sizes.has_come) or (self._asked and self._asked[0][0].done))

    def send_if_many(self) -> None:
        """Ask the core as soon as it is worth a call."""
        if len(self.waiting) >= _FILES:
            self.send()

    def send(self) -> None:
        """Ask the core whether it has the content of the files that wait, in the sizes that their heads tell.

        What it has told already is not asked for, and nothing while it is about to tell.
        """
        if not self.waiting or (self._sizes.is_coming and not self._sizes.has_come):
            return
        files, self.waiting = self.waiting, {}
        heads, contents = zip(*files.values(), strict=True)
        wanted = content_sizes(heads)
        told = map(self._sizes.taken().get, contents)
        is_unsure = [size != here for size, here in zip(wanted, told, strict=True)]
        unsure = dict(compress(files.items(), is_unsure))
        if unsure:
            ids, sizes = list(compress(contents, is_unsure)), list(compress(wanted, is_unsure))
            self._asked.append((self._core.object_has(ids, sizes), unsure))
        for file_id in unsure:
            del files[file_id]
        self._here.update(files)

    def taken(self) -> Iterator[tuple[dict[bytes, Entry], list[bytes]]]:
        """Yield what the core has answered: the files whose content is there, and the ids of the others."""
        if self._sizes.has_come:
            self.send()
        if self._here:
            files, self._here = self._here, {}
            yield files, []
        while self._asked and self._asked[0][0].done:
            pending, files = self._asked.popleft()
            gone = [file_id for file_id, is_here in zip(files, pending.result(), strict=True) if not is_here]
            for file_id in gone:
                del files[file_id]
            yield files, gone
