"""Drafts: dumps that come in parts, each of which is read while the extension makes the next (P-46).

A draft is dropped when a call uses it, and what is left of drafts with the run.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from composefs.errors import ComposefsError, FormatError, NotFoundError, TooLargeError
from composefs.protocol.params import staged_name

if TYPE_CHECKING:
    from composefs.digest import Algorithm
    from composefs.dumpfile import Parser
    from composefs.protocol.limits import Limits
    from composefs.protocol.staged import StagedFiles
    from composefs.protocol.wire import JSONValue
    from composefs.tree import Tree

__all__ = ["Drafts"]

_MOST = 16
"""Drafts at a time.  Empty parts take nothing from the limit of bytes, but a parser takes memory."""


class _Draft:
    """A dump of which some parts have been read; ``error`` is why one was refused."""

    __slots__ = ("error", "parser", "size")

    def __init__(self, parser: Parser) -> None:
        self.parser = parser
        self.size = 0
        self.error: ComposefsError | None = None


class Drafts:
    """The drafts of a run, by name: of staged files, within the limits of a dump in all of them together."""

    def __init__(self, staged: StagedFiles, limits: Limits, algorithm: Algorithm) -> None:
        self._staged = staged
        self._limits = limits
        self._algorithm = algorithm
        self._drafts: dict[str, _Draft] = {}

    def add(self, name: str, part: JSONValue) -> None:
        """Read a staged file with the next lines of a draft, which begins with its first part.

        Raises FormatError, TooLargeError, UsageError and what reading fails with, and from then on the same for
        whatever names the draft: an image without the part must not be made.
        """
        from composefs.dumpfile import Parser

        draft = self._drafts.get(name)
        if draft is None:
            if len(self._drafts) >= _MOST:
                raise TooLargeError(f"there are {_MOST} drafts already", subject=name)
            draft = self._drafts[name] = _Draft(Parser(self._algorithm))
        if draft.error is not None:
            raise copy.copy(draft.error)
        try:
            text = self._staged.read(staged_name(part, "part"), self._bytes_left())
            if text and not text.endswith(b"\n"):
                raise FormatError("the part of a dump does not end with a newline", subject=part)
            _feed(draft.parser, text, part, self._max_entries(draft))
        except ComposefsError as error:
            self._drafts[name] = draft = _Draft(Parser(self._algorithm))  # what was read is of no more use
            # A copy: what is raised holds the frames that it came through, and so the part, the parser and the call.
            draft.error = copy.copy(error)
            raise
        draft.size += len(text)

    def finish(self, name: str, rest: str) -> Tree:
        """Read the last lines of a draft, which may be none; drop it, and return its tree.

        Raises what ``add`` does, and NotFoundError if there is no such draft.
        """
        left = self._bytes_left()
        draft = self._drafts.pop(name, None)
        if draft is None:
            raise NotFoundError(
                f"there is no draft {name}",
                subject=name,
                hint="image.draft begins one, which is used once; a dump that is whole has no need of it",
            )
        if draft.error is not None:
            raise draft.error
        _feed(draft.parser, self._staged.read(rest, left), rest, self._max_entries(draft))
        try:
            return draft.parser.finish()
        except FormatError as error:
            error.subject = rest
            raise

    def _bytes_left(self) -> int:
        return self._limits.dump_bytes - sum(draft.size for draft in self._drafts.values())

    def _max_entries(self, draft: _Draft) -> int:
        """Return how many a draft may have beside the others."""
        others = sum(other.parser.entries for other in self._drafts.values() if other is not draft)
        return self._limits.dump_entries - others


def _feed(parser: Parser, text: bytes, name: str, max_entries: int) -> None:
    try:
        parser.feed(text, max_entries)
    except (FormatError, TooLargeError) as error:
        error.subject = name
        raise
