"""The syntax tree of a regular expression: what `pattern` reads and `program` compiles.

Bytes are what is matched, so sets are of bytes and a character beyond ASCII is a literal of several.  A set is a number
in which bit n says whether byte n is a member: that takes 60 bytes, where a frozenset takes up to 8 KiB.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ALL_BYTES",
    "WORD",
    "Alternatives",
    "Assertion",
    "BackReference",
    "Dot",
    "Group",
    "Literal",
    "Look",
    "Repeat",
    "Sequence",
    "Set",
    "Syntax",
    "byte_range",
    "width",
]


def byte_range(first: str, last: str) -> int:
    """Return the set of all bytes from one to another."""
    return (2 << ord(last)) - (1 << ord(first))


ALL_BYTES = byte_range("\0", "\xff")
WORD = byte_range("a", "z") | byte_range("A", "Z") | byte_range("0", "9") | byte_range("_", "_")


class Literal(NamedTuple):
    """These bytes."""

    data: bytes


class Set(NamedTuple):
    """One byte of a set."""

    members: int


class Dot(NamedTuple):
    """Any byte, or any but a newline for PCRE."""


class Sequence(NamedTuple):
    """One after the other."""

    items: tuple[Syntax, ...]


class Alternatives(NamedTuple):
    """The first that leads to a match."""

    items: tuple[Syntax, ...]


class Repeat(NamedTuple):
    """``low`` to ``high`` times (None: without end), as often as possible or, if lazy, as seldom as possible."""

    item: Syntax
    low: int
    high: int | None
    lazy: bool


class Group(NamedTuple):
    """A capturing group.  ``number`` counts from 2: group 1 is the whole rule."""

    number: int
    item: Syntax


class Look(NamedTuple):
    """A condition on what follows (``ahead``) or precedes: one of the branches is there or, if negative, none.

    A branch that precedes has one `width`.
    """

    branches: tuple[Syntax, ...]
    ahead: bool
    negative: bool


class Assertion(NamedTuple):
    """``start``, ``end``, ``word boundary`` or ``no word boundary``."""

    kind: str


class BackReference(NamedTuple):
    """The bytes that a group matched."""

    number: int


Syntax = Literal | Set | Dot | Sequence | Alternatives | Repeat | Group | Look | Assertion | BackReference


def width(syntax: Syntax) -> int | None:
    """Return the number of bytes that a pattern matches, or None if it is not always the same."""
    match syntax:
        case Literal(data):
            return len(data)
        case Set() | Dot():
            return 1
        case Sequence(items):
            widths = [width(item) for item in items]
            return None if None in widths else sum(each for each in widths if each is not None)
        case Alternatives(items):
            ways = {width(item) for item in items}
            return ways.pop() if len(ways) == 1 else None
        case Repeat(item, low, high, _):
            each = width(item)
            return low * each if each is not None and low == high else None
        case Group(_, item):
            return width(item)
        case Look() | Assertion():
            return 0
        case BackReference():
            return None
