"""GVariant's text format, as people type metadata in it: ``--add-metadata KEY=VALUE``.

Numbers (``5``, ``uint32 5``, ``0x1f``, ``1.5``), booleans, strings and ``b'bytes'`` with their escapes, arrays,
dictionaries, tuples, variants (``<…>``), ``just``, ``nothing``, and types put before a value: ``@as []``.  What has no
type of its own, such as an empty array, must be given one, or take it from what it stands beside.

Source: "GVariant Text Format", docs.gtk.org/glib/gvariant-text-format.html.  What that leaves open is as GLib reads
it, for a commit's id depends on it.
"""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from math import isinf
from typing import Any, NamedTuple

from composefs_ext.errors import FormatError
from composefs_ostree.committing.variantshape import INTEGERS, Shape, element_shape, shape_of, signature_of
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.gvariant import Type, Variant

__all__ = ["parse_text"]

_SPACE = " \f\n\r\t"
_TOKEN = re.compile(
    rf"""[{_SPACE}]*(?:(?P<string>b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))|@(?P<type>[a-z(){{}}]+)(?=[{_SPACE}])"""
    r"""|(?P<number>[0-9.+-][0-9A-Za-z.+-]*|(?:inf|nan)(?![0-9A-Za-z]))|(?P<word>[a-z][0-9A-Za-z]*)"""
    r"""|(?P<sign>[\[\](){}<>,:]))""",
    re.DOTALL,
)
_KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "handle": "h",
    "int64": "x", "uint64": "t", "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
_INTEGER = re.compile(r"([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|infinity|nan)", re.IGNORECASE)
_HEXADECIMAL = re.compile(r"[+-]?0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_BYTE_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
_MAX_DEPTH = 32


class _Node(NamedTuple):
    """A value as it was written, and what that tells of its type.

    ``kind`` is number, string, bytes, bool, array, dict, entry, tuple, variant or maybe; ``declared`` tells that its
    type was put before it.
    """

    kind: str
    value: Any
    shape: Shape
    declared: bool = False


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        position = 0
        text = text.rstrip(_SPACE)
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

    def _takes(self, sign: str) -> bool:
        """Take a sign if it is the next token."""
        is_next = self._next < len(self._tokens) and self._tokens[self._next] == ("sign", sign)
        self._next += is_next
        return is_next

    def _value(self, depth: int) -> _Node:
        if depth > _MAX_DEPTH:
            raise FormatError("the value is nested too deep")
        group, token = self._take()
        match group:
            case "type":
                return self._declared(token, depth)
            case "string":
                if token[0] == "b":
                    return _Node("bytes", _bytes(token[2:-1]), Shape("a", (Shape("y", open=False),)))
                return _Node("string", _string(token[1:-1]), Shape("S"))
            case "number":
                return _Node("number", token, Shape("d" if _is_double(token) else "N"))
            case "word":
                return self._word(token, depth)
        match token:
            case "[":
                items = self._items("]", depth)
                return _Node("array", items, Shape("a", (element_shape([item.shape for item in items]),)))
            case "(":
                items = self._items(")", depth)
                return _Node("tuple", items, Shape("(", tuple([item.shape for item in items])))
            case "{":
                return self._dictionary(depth)
            case "<":
                inner = self._value(depth + 1)
                self._expect(">")
                return _Node("variant", inner, Shape("v"))
        raise FormatError(f"unexpected {token!r}")

    def _declared(self, signature: str, depth: int) -> _Node:
        of = gvariant.parse_type(signature)
        return self._value(depth + 1)._replace(shape=shape_of(of), declared=True)

    def _word(self, word: str, depth: int) -> _Node:
        if word in _KEYWORDS:
            return self._declared(_KEYWORDS[word], depth)
        if word in ("true", "false"):
            return _Node("bool", word == "true", Shape("b"))
        if word == "nothing":
            return _Node("maybe", None, Shape("*", maybes=1, open=False))
        if word == "just":
            inner = self._value(depth + 1)
            return _Node("maybe", inner, inner.shape._replace(maybes=inner.shape.maybes + 1))
        raise FormatError(f"unexpected {word[:20]!r}")

    def _items(self, end: str, depth: int) -> list[_Node]:
        """Read what stands in an array or a tuple; a tuple of one has a comma behind it, nothing else has one."""
        items: list[_Node] = []
        while not self._takes(end):
            if len(items) > (end == ")"):
                self._expect(",")
            items.append(self._value(depth + 1))
            if len(items) == 1 and end == ")":
                self._expect(",")
        return items

    def _dictionary(self, depth: int) -> _Node:
        """Read a dictionary, or one entry, ``{key, value}``, of which an array is one too."""
        entries: list[tuple[_Node, _Node]] = []
        while not self._takes("}"):
            if entries:
                self._expect(",")
            key = self._value(depth + 1)
            if not entries and self._takes(","):
                value = self._value(depth + 1)
                self._expect("}")
                return _Node("entry", (key, value), Shape("{", (_key_shape([key]), value.shape)))
            self._expect(":")
            entries.append((key, self._value(depth + 1)))
        # Keys say together of which type they are, but the first value says it for all.
        value_shape = element_shape([value.shape for _, value in entries[:1]])
        entry = Shape("{", (_key_shape([key for key, _ in entries]), value_shape), open=False)
        return _Node("dict", entries, Shape("a", (entry,)))

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise FormatError(f"{sign!r} is missing before {self._take()[1]!r}")


def _key_shape(keys: list[_Node]) -> Shape:
    shape = element_shape([key.shape for key in keys])
    if shape.maybes or shape.kind not in "*NSbynqiuxthdsog":
        raise FormatError("a dictionary's keys must be of a basic type")
    return shape._replace(open=False)


def _string(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        what = match[1]
        if len(what) == 1:
            if what in "uU":
                raise FormatError(f"\\{what} has {4 if what == 'u' else 8} hexadecimal digits behind it")
            return _LETTERS.get(what, what)
        code = int(what[1:], 16)
        if not 0 < code <= 0x10FFFF or 0xD800 <= code < 0xE000:
            raise FormatError(f"there is no character {match[0]}")
        return chr(code)

    try:
        text.encode()
    except UnicodeEncodeError:
        raise FormatError("a string is not UTF-8") from None
    return _ESCAPE.sub(plain, text)


def _bytes(text: str) -> bytes:
    def plain(match: re.Match[bytes]) -> bytes:
        what = match[1]
        if what[0] in b"01234567":
            return bytes([int(what, 8) & 0xFF])
        return _LETTERS.get(chr(what[0]), chr(what[0])).encode("latin-1")

    # GLib keeps a string of C, which ends at a NUL.
    return _BYTE_ESCAPE.sub(plain, text.encode("utf-8", "surrogateescape")).partition(b"\0")[0] + b"\0"


def _is_double(text: str) -> bool:
    return any(mark in text for mark in (".", "inf", "nan")) or ("e" in text and not text.startswith("0x"))


def _build(node: _Node, of: Type) -> Any:
    """Return a value of a type as :func:`composefs_ostree.formats.gvariant.encode` takes it."""
    if node.declared:
        signature = signature_of(node.shape)
        if signature != of.signature:
            raise FormatError(f"a value of the type {signature} stands where {of.signature} is wanted")
    match of.kind, node.kind:
        case "m", "maybe":
            return None if node.value is None else (_build(node.value, of.members[0]),)
        case "m", _:  # "just" may be left out
            return (_build(node._replace(declared=False), of.members[0]),)
        case "a", "bytes" if of.members[0].kind == "y":
            return node.value
        case "a", "dict" | "array" if of.members[0].kind == "{":
            return _dictionary(node, of.members[0])
        case "a", "array":
            items = [_build(item, of.members[0]) for item in node.value]
            return bytes(items) if of.members[0].kind == "y" else items
        case ("(", "tuple") | ("{", "entry") if len(node.value) == len(of.members):
            return tuple(_build(item, member) for item, member in zip(node.value, of.members, strict=True))
        case "v", "variant":
            return _variant(node.value)
        case "b", "bool":
            return node.value
        case "s" | "o" | "g", "string":
            return gvariant.check_text(of.kind, node.value)
        case "d", "number":
            return _double(node.value)
        case kind, "number" if kind in INTEGERS:
            return _integer(node.value, kind)
    raise FormatError(f"a {node.kind} is no value of the type {of.signature}")


def _dictionary(node: _Node, of: Type) -> dict[Any, Any]:
    """Return what a dictionary, or an array, of entries of a type stands for."""
    entries = node.value
    if node.kind == "dict":
        # The type that may stand before a dictionary is not that of its entries.
        entries = [node._replace(kind="entry", value=it, declared=False) for it in entries]
    found: dict[Any, Any] = {}
    for entry in entries:
        key, value = _build(entry, of)
        if key in found:
            raise FormatError(f"the key {key!r} stands twice in one dictionary")
        found[key] = value
    return found


def _integer(text: str, kind: str) -> int:
    match = _INTEGER.fullmatch(text)
    # No type holds a number of more digits, and Python makes none of thousands of them.
    if match is not None and len(match[2]) < 80:
        digits = match[2]
        base = {"x": 16, "b": 2}.get(digits[1:2].lower(), 8 if digits[0] == "0" else 10)
        value = int(match[1] + digits, base)
        with suppress(struct.error):
            gvariant.encode(kind, value)
            return value
    raise FormatError(f"{text[:80]!r} is no number of the type {kind}")


def _double(text: str) -> float:
    value = None
    if _DECIMAL.fullmatch(text):
        value = float(text)
    elif _HEXADECIMAL.fullmatch(text):
        with suppress(OverflowError):
            value = float.fromhex(text)
    if value is None or (isinf(value) and "inf" not in text.lower()):
        raise FormatError(f"{text[:80]!r} is no number of the type d")
    return value


def _variant(node: _Node) -> Variant:
    """Return a parsed value with its type."""
    signature = signature_of(node.shape)
    if signature is None:
        raise FormatError("the value's type is not clear; put one before it, such as @as []")
    return Variant(signature, _build(node, gvariant.parse_type(signature)))


def parse_text(text: str) -> Variant:
    """Read a value; raise FormatError."""
    return _variant(_Parser(text).whole())
