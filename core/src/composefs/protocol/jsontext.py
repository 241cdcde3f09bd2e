"""JSON text of any length, indented as it passes by: nothing of it is kept but the path to where it is.

For the result of a command that no message holds (docs/protocol.md, P-44).  The text must be one object by RFC 8259,
within the bounds of P-4; strings and numbers go on as they were written.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from composefs.protocol.limits import MAX_DEPTH
from composefs.protocol.wire import parse_json

__all__ = ["indented"]

_BLANK = re.compile(r"[ \t\n\r]*+")
# A string without its quotes, or the part of it that is here.  Nothing is tried again: there may be megabytes.
_STRING = re.compile(r'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+')
_SCALAR = re.compile(r"[-+.0-9A-Za-z]+")
_LONGEST_ESCAPE = 6
_LONGEST_SCALAR = 400
"""Characters of a number or word; no double needs as many, unless it is written to be a nuisance."""


def indented(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the JSON object in ``pieces`` as ``json.dumps(…, indent=2)`` would lay it out, a text for each piece.

    Raises ValueError with a reason where it is none; what was yielded before is of no use then.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    reader = _Reader()
    try:
        for piece, final in chain(((piece, False) for piece in pieces), [(b"", True)]):
            yield reader.feed(decoder.decode(piece, final), final=final)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None


class _Place(NamedTuple):
    """What may come next, and ``what`` that is in words.

    ``marks`` are the quotes, brackets, commas and colons that may, ``key`` and ``value`` tell whether a string is a
    name, and whether a number or word may come; ``line`` whether what comes begins a line.
    """

    what: str
    marks: str = ""
    key: bool = False
    value: bool = False
    line: bool = False


_START = _Place("an object", "{")
_FIRST_KEY = _Place("a name or }", '"}', key=True, line=True)
_KEY = _Place("a name", '"', key=True, line=True)
_COLON = _Place("a colon", ":")
_MEMBER = _Place("a value", '"{[', value=True)
_FIRST_ITEM = _Place("a value or ]", '"{[]', value=True, line=True)
_ITEM = _Place("a value", '"{[', value=True, line=True)
_AFTER = {"}": _Place("a comma or }", ",}"), "]": _Place("a comma or ]", ",]")}
_END = _Place("the end")


class _Reader:
    """Where in the object the text is, and how that is laid out."""

    def __init__(self) -> None:
        self._place = _START
        self._open: list[str] = []  # the brackets that will close what is open
        self._string = False
        self._rest = ""

    def feed(self, text: str, *, final: bool) -> str:
        """Take the next part and return what becomes of all of it but, unless ``final``, a token that may go on."""
        text, out, position = self._rest + text, [], 0
        while True:
            if self._string:
                end = _STRING.match(text, position).end()  # type: ignore[union-attr]  # it matches nothing, too
                out.append(text[position:end])
                position = end
                if position == len(text) or (text[position] == "\\" and len(text) - position < _LONGEST_ESCAPE):
                    break
                if text[position] != '"':
                    raise ValueError("a string has a character or an escape that JSON does not allow")
                out.append('"')
                position += 1
                self._string = False
            position = _BLANK.match(text, position).end()  # type: ignore[union-attr]  # likewise
            if position == len(text):
                break
            character = text[position]
            if character in '"{}[]:,':
                out.append(self._mark(character))
                position += 1
                continue
            match = _SCALAR.match(text, position)
            end = position + 1 if match is None else match.end()
            if end - position > _LONGEST_SCALAR:
                raise ValueError("a number is longer than any should be")
            if end == len(text) and not final:
                break
            out.append(self._scalar(text[position:end]))
            position = end
        self._rest = text[position:]
        if final and (self._rest or self._place is not _END):
            raise ValueError("it ends too early")
        return "".join(out)

    def _mark(self, character: str) -> str:
        """Take a bracket, comma, colon or the quote that begins a string; return it with the blanks around it."""
        place = self._place
        if character not in place.marks:
            raise ValueError(f"{character} is where {place.what} should be")
        before = self._line() if place.line else ""
        if character == '"':
            self._string = True
            self._place = _COLON if place.key else _AFTER[self._open[-1]]
        elif character in "{[":
            self._open.append("}" if character == "{" else "]")
            self._place = _FIRST_KEY if character == "{" else _FIRST_ITEM
            if len(self._open) > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
        elif character == ":":
            self._place = _MEMBER
            return ": "
        elif character == ",":
            self._place = _KEY if self._open[-1] == "}" else _ITEM
        else:
            self._open.pop()
            self._place = _AFTER[self._open[-1]] if self._open else _END
            return character if place.line else self._line() + character  # right behind its opening: {}
        return before + character

    def _scalar(self, text: str) -> str:
        """Take a number or a word."""
        place = self._place
        if not place.value:
            raise ValueError(f"{text[:40]} is where {place.what} should be")
        parse_json(text.encode())
        self._place = _AFTER[self._open[-1]]
        return self._line() + text if place.line else text

    def _line(self) -> str:
        return "\n" + "  " * len(self._open)
