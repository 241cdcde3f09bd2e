"""The regular expressions of SELinux' file_contexts, read into a syntax tree.

Policies are written for PCRE (selabel_file(5), pcre2syntax(3)).  composefs-rs 0.9.0, whose labels we give, runs a rule
on a linear-time automaton if it can, where ``.`` matches a newline, and otherwise on PCRE, where it does not; what
needs PCRE is remembered as ``Pattern.pcre``.  The two read some expressions differently, and some are rare, dangerous
or both: those are refused by name, so that no file ever gets a label by a guess.

A pattern comes from the image, so everything is bounded here: its length, its nesting, its counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from composefs.boot.syntax import (
    ALL_BYTES,
    WORD,
    Alternatives,
    Assertion,
    BackReference,
    Dot,
    Group,
    Literal,
    Look,
    Repeat,
    Sequence,
    Set,
    Syntax,
    byte_range,
    width,
)
from composefs.errors import FormatError, TooLargeError

__all__ = ["Pattern", "parse"]

MAX_PATTERN = 4096
"""Characters of a pattern; real ones have up to some hundred."""
MAX_DEPTH = 30
"""Groups inside one another; the parser and the compiler recurse so deep."""
MAX_STACKED = 3
"""Quantifiers of one atom."""
MAX_COUNT = 1000
"""The largest number in ``{m,n}``."""

_DIGIT = byte_range("0", "9")
_LOWER = byte_range("a", "z")
_UPPER = byte_range("A", "Z")
_ALPHA = _LOWER | _UPPER
_BLANK = byte_range(" ", " ")
_SPACE = byte_range("\t", "\r") | _BLANK
_GRAPH = byte_range("!", "~")

_POSIX = {
    "alnum": _ALPHA | _DIGIT,
    "alpha": _ALPHA,
    "ascii": byte_range("\0", "\x7f"),
    "blank": byte_range("\t", "\t") | _BLANK,
    "cntrl": byte_range("\0", "\x1f") | byte_range("\x7f", "\x7f"),
    "digit": _DIGIT,
    "graph": _GRAPH,
    "lower": _LOWER,
    "print": _GRAPH | _BLANK,
    "punct": _GRAPH & ~(_ALPHA | _DIGIT),
    "space": _SPACE,
    "upper": _UPPER,
    "word": WORD,
    "xdigit": _DIGIT | byte_range("a", "f") | byte_range("A", "F"),
}
_CLASSES = {"d": _DIGIT, "s": _SPACE, "w": WORD}
_CLASSES |= {name.upper(): ALL_BYTES ^ members for name, members in _CLASSES.items()}
_CONTROLS = {"n": 0x0A, "r": 0x0D, "t": 0x09, "f": 0x0C, "a": 0x07}
_ASSERTIONS = {"b": "word boundary", "B": "no word boundary", "A": "start", "z": "end"}
_LOOKS = {"(?=": (True, False), "(?!": (True, True), "(?<=": (False, False), "(?<!": (False, True)}

# Escaped ASCII punctuation stands for itself, but \< and \> are word edges in one of the two engines.
_ESCAPED = r"\\[!-/:;=?@\[-`{-~]"
_RUN = re.compile(rf"(?:[^\\.^$|()\[\]{{}}*+?]|{_ESCAPED})+")
_CHARACTERS = re.compile(rf"{_ESCAPED}|[^\\]")
_ONE_ESCAPED = re.compile(_ESCAPED)
_BACKSLASHED = re.compile(r"\\(.)", re.DOTALL)
_QUANTIFIER = re.compile(r"[*+?]|\{([0-9]+)(,)?([0-9]*)\}")
_HEX = re.compile(r"\\x(?:\{([0-9A-Fa-f]{1,8})\}|([0-9A-Fa-f]{2}))")
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")


class Pattern(NamedTuple):
    """A pattern: ``stem`` are the bytes that each match begins with, ``rest`` is what comes after them.

    ``pcre``: it is for PCRE, where a dot is no newline.  ``plain``: it has no conditions and no back references, so
    that an automaton can run it.  ``references``: the groups that it refers back to.
    """

    stem: bytes
    rest: Syntax
    pcre: bool
    plain: bool
    references: frozenset[int]


EMPTY = Sequence(())


def parse(text: str) -> Pattern:
    """Parse a rule's expression.  Raises FormatError, whose offset is the character, and TooLargeError."""
    if len(text) > MAX_PATTERN:
        raise TooLargeError(f"a regular expression of {len(text)} characters is longer than {MAX_PATTERN}")
    return _Parser(text).pattern()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.groups = 1
        self.references: set[int] = set()
        self.pcre = False
        self.plain = True
        self.stacked = False

    def refuse(self, reason: str, at: int | None = None) -> FormatError:
        offset = self.at if at is None else at
        return FormatError(f"regular expression {self.text[:200]!r}, character {offset}: {reason}", offset=offset)

    def pattern(self) -> Pattern:
        syntax = self.alternatives()
        if self.at < len(self.text):
            raise self.refuse("a parenthesis is closed that was not opened")
        if self.references and max(self.references) > self.groups:
            raise self.refuse("a back reference to a group that is not there")
        if self.pcre and self.stacked:
            raise self.refuse("possessive quantifiers are not supported here")
        stem, rest = b"", syntax
        match syntax:
            case Literal(data):
                stem, rest = data, EMPTY
            case Sequence((Literal(data), *items)):
                stem, rest = data, Sequence(tuple(items))
        return Pattern(stem, rest, self.pcre, self.plain, frozenset(self.references))

    def enter(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLargeError(f"a regular expression is nested deeper than {MAX_DEPTH}: {self.text[:200]!r}")

    def alternatives(self) -> Syntax:
        items = [self.sequence()]
        while self.text.startswith("|", self.at):
            self.at += 1
            items.append(self.sequence())
        return items[0] if len(items) == 1 else Alternatives(tuple(items))

    def sequence(self) -> Syntax:
        items: list[Syntax] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            for item in self.atoms():
                match item, items:
                    case Literal(data), [*_, Literal(before)]:
                        items[-1] = Literal(before + data)
                    case _:
                        items.append(item)
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def atoms(self) -> Iterator[Syntax]:
        """Read a run of literal characters, or one atom with its quantifiers."""
        run = _RUN.match(self.text, self.at)
        if run is None:
            atom = self.atom()
        else:
            cut = run.end()
            if _QUANTIFIER.match(self.text, cut):  # It belongs to the last character of the run.
                cut -= len(_CHARACTERS.findall(run[0])[-1])
            if cut > self.at:
                yield Literal(_bytes_of(self.text[self.at : cut]))
            atom = Literal(_bytes_of(self.text[cut : run.end()]))
            self.at = run.end()
            if cut == run.end():
                return
        yield self.quantified(atom)

    def quantified(self, atom: Syntax) -> Syntax:
        count = 0
        while found := _QUANTIFIER.match(self.text, self.at):
            self.stacked = self.stacked or count > 0
            count += 1
            if count > MAX_STACKED:
                raise self.refuse("too many quantifiers of one thing")
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0]) or self.counts(found)
            self.at = found.end()
            lazy = self.text.startswith("?", self.at)
            self.at += lazy
            if isinstance(atom, Assertion | Look):
                raise self.refuse("a condition cannot be repeated")
            atom = Repeat(atom, low, high, lazy)
        return atom

    def counts(self, found: re.Match[str]) -> tuple[int, int | None]:
        low = int(found[1])
        high = int(found[3]) if found[3] else None if found[2] else low
        if max(low, high or 0) > MAX_COUNT:
            raise TooLargeError(f"a regular expression counts to more than {MAX_COUNT}: {self.text[:200]!r}")
        if high is not None and high < low:
            raise self.refuse("a range of repetitions is the wrong way round")
        return low, high

    def atom(self) -> Syntax:
        char = self.text[self.at]
        match char:
            case "(":
                return self.group()
            case "[":
                return Set(self.bracket())
            case "\\":
                return self.escape()
            case "*" | "+" | "?":
                raise self.refuse("there is nothing to repeat")
        self.at += 1
        match char:
            case ".":
                return Dot()
            case "^" | "$":
                self.plain = False
                return Assertion("start" if char == "^" else "end")
            case "{":
                if _QUANTIFIER.match(self.text, self.at - 1) or self.text.startswith(",", self.at):
                    raise self.refuse("there is nothing to repeat, or no smallest number", self.at - 1)
                self.pcre = True  # A lone brace is one for PCRE only.
        return Literal(char.encode())

    def group(self) -> Syntax:
        start = self.at
        self.enter()
        look = next((kind for kind in _LOOKS if self.text.startswith(kind, start)), None)
        number = 0
        if look is not None:
            self.at += len(look)
            self.pcre, self.plain = True, False
        elif self.text.startswith("(?:", start):
            self.at += 3
        elif self.text.startswith(("(?", "(*"), start):
            raise self.refuse("groups that begin so are not supported")
        else:
            self.at += 1
            self.groups += 1
            number = self.groups
        item = self.alternatives()
        if self.at >= len(self.text):
            raise self.refuse("a parenthesis is not closed", start)
        self.at += 1
        self.depth -= 1
        if look is not None:
            ahead, negative = _LOOKS[look]
            branches = item.items if isinstance(item, Alternatives) and not ahead else (item,)
            if not ahead and None in map(width, branches):
                raise self.refuse("what is looked for behind has no fixed length", start)
            return Look(branches, ahead, negative)
        return Group(number, item) if number else item

    def escape(self) -> Syntax:
        value = self.byte()
        if value is not None:
            return Literal(bytes([value]))
        name = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        if name in _CLASSES:
            return Set(_CLASSES[name])
        if name in _ASSERTIONS:
            self.plain = False
            return Assertion(_ASSERTIONS[name])
        if name in tuple("123456789") and not self.text[self.at : self.at + 1].isdigit():
            self.pcre, self.plain = True, False
            self.references.add(int(name))
            return BackReference(int(name))
        raise self.refuse("this escape is not supported", self.at - 2)

    def byte(self) -> int | None:
        """Read an escape that stands for one byte; None, and nothing is read, if it is another one."""
        if code := _HEX.match(self.text, self.at):
            value = int(code[1] or code[2], 16)
            if value > 0xFF:
                raise self.refuse("a code beyond \\xff")
            self.at = code.end()
            return value
        if _ONE_ESCAPED.match(self.text, self.at):
            self.at += 2
            return ord(self.text[self.at - 1])
        control = _CONTROLS.get(self.text[self.at + 1 : self.at + 2])
        if control is not None:
            self.at += 2
        return control

    def bracket(self) -> int:
        start = self.at
        negated = self.text.startswith("[^", start)
        self.at += 1 + negated
        members = 0
        first = True
        while first or not self.text.startswith("]", self.at):
            if self.at >= len(self.text):
                raise self.refuse("a bracket is not closed", start)
            if self.text.startswith(("&&", "--", "~~"), self.at):
                raise self.refuse("set operations are not supported")
            members |= self.bracket_item()
            first = False
        self.at += 1
        return ALL_BYTES ^ members if negated else members

    def bracket_item(self) -> int:
        """Read a class, a character, or a range of characters."""
        if posix := _POSIX_CLASS.match(self.text, self.at):
            if posix[2] not in _POSIX:
                raise self.refuse("there is no such class")
            self.at = posix.end()
            return ALL_BYTES ^ _POSIX[posix[2]] if posix[1] else _POSIX[posix[2]]
        name = self.text[self.at + 1 : self.at + 2]
        if self.text.startswith("\\", self.at) and name in _CLASSES:
            self.at += 2
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                raise self.refuse("a class is no end of a range")
            return _CLASSES[name]
        low = self.bracket_byte()
        if not self.text.startswith("-", self.at) or self.text.startswith(("-]", "--"), self.at):
            return byte_range(low, low)
        self.at += 1
        high = self.bracket_byte()
        if high < low:
            raise self.refuse("a range is the wrong way round")
        return byte_range(low, high)

    def bracket_byte(self) -> str:
        """Return the byte as a character."""
        char = self.text[self.at : self.at + 1]
        if char == "\\":
            value = self.byte()
            if value is None:
                raise self.refuse("this escape is not supported in a bracket")
            return chr(value)
        if char in ("", "[") or not char.isascii():
            raise self.refuse("write this in a bracket as an escape" if char else "a bracket is not closed")
        self.at += 1
        return char


def _bytes_of(text: str) -> bytes:
    """The bytes of literal characters, some of them escaped."""
    return _BACKSLASHED.sub(r"\1", text).encode()
