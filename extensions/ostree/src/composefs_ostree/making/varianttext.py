"""GVariant's text format, as far as people type metadata in it: ``--add-metadata KEY=VALUE``.

Numbers (``5``, ``uint32 5``, ``0x1f``, ``1.5``), booleans, strings and ``b'bytes'`` with their escapes, arrays,
dictionaries, tuples, variants (``<…>``), ``just``, ``nothing``, and types put before a value: ``@as []``.  What has no
type of its own, such as an empty array, must be given one, or take it from what it stands beside.

Source: "GVariant Text Format", docs.gtk.org/glib/gvariant-text-format.html.
"""

from __future__ import annotations

import re
import struct
from math import isinf
from typing import Any, NamedTuple

from composefs_ext.errors import FormatError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Type, Variant

__all__ = ["parse_text"]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))|(?P<type>@[a-z(){}]+)"""
    r"""|(?P<word>[+-]?[0-9A-Za-z_.][0-9A-Za-z_.+-]*)|(?P<sign>[\[\](){}<>,:]))""",
    re.DOTALL,
)
_KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "handle": "h",
    "int64": "x", "uint64": "t", "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
_FORMATS = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "h": "i", "x": "q", "t": "Q"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|\n|.)", re.DOTALL)
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
_MAX_DEPTH = 32


class _Node(NamedTuple):
    """A value as it was written; ``kind`` is number, string, bytes, bool, array, dict, tuple, variant or maybe.

    ``signature`` is the type that was put before it, or that its kind has; None where it has to be inferred.
    """

    kind: str
    value: Any
    signature: str | None


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise FormatError(f"unexpected {text[position : position + 20]!r}")
            self._tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
            position = match.end()
        self._next = 0

    def whole(self) -> _Node:
        node = self._value(0)
        if self._next < len(self._tokens):
            raise FormatError(f"unexpected {self._tokens[self._next][1]!r} behind the value")
        return node

    def _take(self) -> tuple[str, str]:
        if self._next == len(self._tokens):
            raise FormatError("the value ends too early")
        self._next += 1
        return self._tokens[self._next - 1]

    def _peek(self) -> str:
        return self._tokens[self._next][1] if self._next < len(self._tokens) else ""

    def _value(self, depth: int) -> _Node:
        if depth > _MAX_DEPTH:
            raise FormatError("the value is nested too deep")
        group, token = self._take()
        if group == "type":
            gvariant.parse_type(token[1:])
            return self._value(depth + 1)._replace(signature=token[1:])
        if group == "string":
            if token[0] == "b":
                return _Node("bytes", _unescape(token[2:-1]).encode("latin-1", "replace") + b"\0", "ay")
            return _Node("string", _unescape(token[1:-1]), "s")
        if group == "word":
            return self._word(token, depth)
        match token:
            case "[":
                return _Node("array", self._items("]", depth), None)
            case "(":
                return _Node("tuple", self._items(")", depth), None)
            case "{":
                return _Node("dict", self._entries(depth), None)
            case "<":
                inner = self._value(depth + 1)
                self._expect(">")
                return _Node("variant", inner, "v")
        raise FormatError(f"unexpected {token!r}")

    def _word(self, word: str, depth: int) -> _Node:
        if word in _KEYWORDS:
            return self._value(depth + 1)._replace(signature=_KEYWORDS[word])
        if word in ("true", "false"):
            return _Node("bool", word == "true", "b")
        if word == "nothing":
            return _Node("maybe", None, None)
        if word == "just":
            return _Node("maybe", self._value(depth + 1), None)
        return _Node("number", word, None)

    def _items(self, end: str, depth: int) -> list[_Node]:
        items = []
        while self._peek() != end:
            items.append(self._value(depth + 1))
            if self._peek() != end:
                self._expect(",")
        self._next += 1
        return items

    def _entries(self, depth: int) -> list[tuple[_Node, _Node]]:
        entries = []
        while self._peek() != "}":
            key = self._value(depth + 1)
            self._expect(":")
            entries.append((key, self._value(depth + 1)))
            if self._peek() != "}":
                self._expect(",")
        self._next += 1
        return entries

    def _expect(self, sign: str) -> None:
        _, token = self._take()
        if token != sign:
            raise FormatError(f"{sign!r} is missing before {token!r}")


def _unescape(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        what = match[1]
        if what[0] in "uU" and len(what) > 1:
            return chr(int(what[1:], 16))
        if what[0] in "01234567":
            return chr(int(what, 8) & 0xFF)
        return _LETTERS.get(what, what)

    return _ESCAPE.sub(plain, text)


def _common(nodes: list[_Node]) -> str | None:
    """Return the type that all the values of an array can have, None if none of them tells.

    A number without a type takes that of the numbers beside it.
    """
    plain = {"i": False, "d": False}
    found = None
    for node in nodes:
        signature = _infer(node)
        if node.kind == "number" and node.signature is None:
            plain[str(signature)] = True
        elif signature is not None:
            if found not in (None, signature):
                raise FormatError(f"values of the types {found} and {signature} stand in one array")
            found = signature
    if found is None:
        return "d" if plain["d"] else "i" if plain["i"] else None
    return found


def _infer(node: _Node) -> str | None:
    """Return a value's type, None if it does not tell."""
    if node.signature is not None:
        return node.signature
    if node.kind == "number":
        return "i" if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)", node.value) else "d"
    if node.kind == "array":
        element = _common(node.value)
        return None if element is None else "a" + element
    if node.kind == "dict":
        key, value = _common([key for key, _ in node.value]), _common([value for _, value in node.value])
        return None if key is None or value is None else f"a{{{key}{value}}}"
    if node.kind == "maybe":
        inner = None if node.value is None else _infer(node.value)
        return None if inner is None else "m" + inner
    members = list(map(_infer, node.value))
    return None if None in members else f"({''.join(filter(None, members))})"


def _build(node: _Node, of: Type) -> Any:
    """Return a value of a type as :func:`composefs_ostree.formats.gvariant.encode` takes it."""
    is_text = node.kind == "string" and of.kind in "sog"
    if node.signature not in (None, of.signature) and not is_text:
        raise FormatError(f"a value of the type {node.signature} stands where {of.signature} is wanted")
    if of.kind in _FORMATS or of.kind == "d":
        return _number(node, of.kind)
    if is_text:
        return node.value
    if of.kind == "b" and node.kind == "bool":
        return node.value
    if of.kind == "v" and node.kind == "variant":
        return parse_node(node.value)
    if of.kind == "m":
        # "just" may be left out.
        inner = node.value if node.kind == "maybe" else node._replace(signature=None)
        return None if inner is None else (_build(inner, of.members[0]),)
    if of.kind == "(" and node.kind == "tuple" and len(node.value) == len(of.members):
        return tuple(_build(item, member) for item, member in zip(node.value, of.members, strict=True))
    if of.kind == "a":
        element = of.members[0]
        if node.kind == "bytes" and element.kind == "y":
            return node.value
        if node.kind == "array" and element.kind != "{":
            items = [_build(item, element) for item in node.value]
            return bytes(items) if element.kind == "y" else items
        if node.kind == "dict" and element.kind == "{":
            key_type, value_type = element.members
            return {_build(key, key_type): _build(value, value_type) for key, value in node.value}
    raise FormatError(f"a {node.kind} is no value of the type {of.signature}")


def _number(node: _Node, kind: str) -> int | float:
    if node.kind != "number":
        raise FormatError(f"a {node.kind} is no number")
    text: str = node.value
    try:
        if kind == "d":
            number = float(text)
            if isinf(number) and "inf" not in text:
                raise ValueError
            return number
        sign, digits = ("-", text[1:]) if text[0] == "-" else ("", text.removeprefix("+"))
        octal = len(digits) > 1 and digits.isdecimal() and digits[0] == "0"
        value = int(sign + digits, 8 if octal else 0)
        struct.pack("<" + _FORMATS[kind], value)
    except (ValueError, struct.error):
        raise FormatError(f"{text!r} is no number of the type {kind}") from None
    return value


def parse_node(node: _Node) -> Variant:
    """Return a parsed value with its type."""
    signature = _infer(node)
    if signature is None:
        raise FormatError("the value's type is not clear; put one before it, such as @as []")
    return Variant(signature, _build(node, gvariant.parse_type(signature)))


def parse_text(text: str) -> Variant:
    """Read a value; raise FormatError."""
    return parse_node(_Parser(text).whole())
