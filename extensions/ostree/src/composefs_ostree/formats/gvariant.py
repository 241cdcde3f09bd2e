"""GVariant, little-endian and in normal form: the serialisation of every ostree object that is not file content.

Normal form means that a value has exactly one serialisation: padding is zero, offsets are in order and as narrow as
they can be, strings are UTF-8 without NUL, object paths and signatures are such, booleans are 0 or 1.  :func:`decode`
refuses anything else, by serialising what it read and comparing; and dictionaries that have a key twice, of which
``g_variant_lookup`` finds the first entry and ``GVariantDict`` the last.
Source: "GVariant Serialisation", docs.gtk.org/glib/gvariant-specification.html.

Python values: integers for y n q i u x t h, float for d, bool for b, str for s o g, bytes for ay, list for other
arrays, dict for arrays of dictionary entries, tuple for tuples, None or a 1-tuple for maybe, :class:`Variant` for v.

This codec is for the few values that have arbitrary types (commits, summaries); dirtrees, dirmetas and file headers,
of which there are thousands, have readers of their own in :mod:`composefs_ostree.formats.objects`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from composefs_ext.errors import FormatError

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "Type",
    "Variant",
    "array_elements",
    "check_text",
    "decode",
    "encode",
    "offset_size",
    "pack_array",
    "pack_offsets",
    "parse_type",
]

MAX_DEPTH = 127
"""Containers and variants, together, that a value may be in: as many as GLib reads."""

MAX_VALUES = 2_000_000
"""Values in one serialised value: a few bytes each in the file, but a Python object each here."""

_MAX_SIGNATURE = 255
_FIXED = {"b": "<B", "y": "<B", "n": "<h", "q": "<H", "i": "<i", "u": "<I", "h": "<i", "x": "<q", "t": "<Q", "d": "<d"}
_OFFSETS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Variant(NamedTuple):
    """A value that carries its type, as in ``a{sv}``."""

    signature: str
    value: Any


class Type(NamedTuple):
    """A parsed type string.

    ``kind`` is its first character; ``size`` is the serialised size in bytes if that is the same for all values.
    """

    kind: str
    signature: str
    alignment: int
    size: int | None
    members: tuple[Type, ...] = ()


@lru_cache(maxsize=256)
def parse_type(signature: str) -> Type:
    """Parse one complete type such as ``a{sv}``; raise FormatError for anything else."""
    if len(signature) > _MAX_SIGNATURE:
        raise FormatError("a GVariant type string is longer than 255 characters")
    parsed, end = _parse_type(signature, 0, 0)
    if end != len(signature):
        raise FormatError(f"{signature!r} is not one GVariant type")
    return parsed


def _parse_type(text: str, start: int, depth: int) -> tuple[Type, int]:
    if depth > MAX_DEPTH or start >= len(text):
        raise FormatError(f"{text!r} is not a GVariant type")
    kind = text[start]
    if kind in _FIXED:
        size = struct.calcsize(_FIXED[kind])
        return Type(kind, kind, size, size), start + 1
    if kind in "sog":
        return Type(kind, kind, 1, None), start + 1
    if kind == "v":
        return Type(kind, kind, 8, None), start + 1
    if kind in "am":
        element, end = _parse_type(text, start + 1, depth + 1)
        return Type(kind, text[start:end], element.alignment, None, (element,)), end
    if kind not in "({":
        raise FormatError(f"{text!r} is not a GVariant type")
    closing = ")" if kind == "(" else "}"
    members = []
    end = start + 1
    while text[end : end + 1] != closing:
        member, end = _parse_type(text, end, depth + 1)
        members.append(member)
    if kind == "{" and (len(members) != 2 or members[0].kind not in "bynqiuhxtdsog"):
        raise FormatError(f"{text!r} has a malformed dictionary entry")
    return _tuple_type(kind, text[start : end + 1], tuple(members)), end + 1


def _tuple_type(kind: str, signature: str, members: tuple[Type, ...]) -> Type:
    alignment = max((member.alignment for member in members), default=1)
    position = 0
    for member in members:
        if member.size is None:
            return Type(kind, signature, alignment, None, members)
        position = _align(position, member.alignment) + member.size
    return Type(kind, signature, alignment, _align(position, alignment) or 1, members)


def _align(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def offset_size(container_size: int) -> int:
    """Return the width in bytes of the offsets in a container of ``container_size`` bytes, offsets included."""
    if container_size > 0xFFFF:
        return 4 if container_size <= 0xFFFFFFFF else 8
    return 2 if container_size > 0xFF else int(container_size > 0)


def pack_offsets(body_size: int, offsets: Sequence[int]) -> bytes:
    """Serialise end offsets in the narrowest width that can express the size of the finished container."""
    if body_size + len(offsets) < 1 << 8:  # most are: dirtrees have one of these for each entry
        return bytes(offsets)
    width = next(width for width in (2, 4, 8) if body_size + width * len(offsets) < 1 << (8 * width))
    return struct.pack(f"<{len(offsets)}{_OFFSETS[width]}", *offsets)


def pack_array(elements: Sequence[bytes]) -> bytes:
    """Serialise an array of elements of alignment 1 that vary in size, and are serialised already."""
    if not elements:
        return b""
    ends = list(accumulate(map(len, elements)))
    return b"".join(elements) + pack_offsets(ends[-1], ends)


def decode(signature: str, data: bytes | memoryview) -> Any:
    """Read a value of a type; raise FormatError unless ``data`` is its normal form, without a key twice."""
    view = memoryview(data)
    value = _Decoder().decode(parse_type(signature), view, 0)
    if encode(signature, value) != bytes(data):  # of a view, each byte would be compared by itself
        raise FormatError(f"a GVariant of type {signature} is not in normal form")
    return value


class _Decoder:
    """Reads values; ``left`` bounds how many, so that a small file cannot fill the memory."""

    def __init__(self) -> None:
        self.left = MAX_VALUES

    def decode(self, of: Type, view: memoryview, depth: int) -> Any:
        self.left -= 1
        if self.left < 0:
            raise _too_many()
        if depth > MAX_DEPTH:
            raise FormatError(f"a GVariant is nested deeper than {MAX_DEPTH} levels")
        if of.size is not None and len(view) != of.size:
            raise FormatError(f"a GVariant of type {of.signature} has {len(view)} bytes instead of {of.size}")
        if of.kind in _FIXED:
            (number,) = struct.unpack(_FIXED[of.kind], view)
            return bool(number) if of.kind == "b" else number
        if of.kind in "sog":
            text = _decode_string(view)
            if of.kind == "g":
                self.left -= len(text)  # each character may be a type, which takes as long as a value
                if self.left < 0:
                    raise _too_many()
            return check_text(of.kind, text)
        if of.kind == "v":
            return self._decode_variant(view, depth)
        if of.kind == "m":
            return self._decode_maybe(of.members[0], view, depth)
        if of.kind == "a":
            return self._decode_array(of.members[0], view, depth)
        return self._decode_tuple(of, view, depth)

    def _decode_variant(self, view: memoryview, depth: int) -> Variant:
        tail = bytes(view[-_MAX_SIGNATURE - 1 :])
        separator = tail.rfind(b"\0")
        if separator < 0:
            raise FormatError("a GVariant variant has no type string")
        signature = tail[separator + 1 :].decode("ascii", "replace")
        value = self.decode(parse_type(signature), view[: len(view) - len(signature) - 1], depth + 1)
        return Variant(signature, value)

    def _decode_maybe(self, element: Type, view: memoryview, depth: int) -> tuple[Any] | None:
        if not view:
            return None
        return (self.decode(element, view if element.size is not None else view[:-1], depth + 1),)

    def _decode_array(self, element: Type, view: memoryview, depth: int) -> Any:
        if element.kind == "y":
            return bytes(view)
        if depth < MAX_DEPTH and _is_byte_string(element):
            strings = _byte_strings(bytes(view), self.left)
            self.left -= len(strings)
            return strings
        elements: Iterator[memoryview]
        size = element.size
        if size is not None:
            elements = (view[start : start + size] for start in range(0, len(view), size))
        else:
            elements = array_elements(view, element.alignment, self.left)
        values = [self.decode(element, each, depth + 1) for each in elements]
        return _dictionary(values) if element.kind == "{" else values

    def _decode_tuple(self, of: Type, view: memoryview, depth: int) -> tuple[Any, ...]:
        width = offset_size(len(view))
        body_end = len(view)
        position = 0
        values = []
        for index, member in enumerate(of.members):
            start = _align(position, member.alignment)
            if member.size is not None:
                position = start + member.size
            elif index == len(of.members) - 1:
                position = body_end
            else:
                body_end -= width
                position = int.from_bytes(view[max(body_end, 0) : max(body_end, 0) + width], "little")
            if not start <= position <= body_end:
                raise FormatError(f"a GVariant of type {of.signature} has a member outside of itself")
            values.append(self.decode(member, view[start:position], depth + 1))
        return tuple(values)


def _dictionary(entries: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return entries as a dictionary; which of two with one key counts, readers do not agree on."""
    found: dict[Any, Any] = {}
    for key, value in entries:
        if key in found:
            raise FormatError(
                f"a GVariant dictionary has the key {str(key)[:80]!a} twice",
                hint="who publishes it has to make it anew, with one of them",
            )
        found[key] = value
    return found


def _is_byte_string(of: Type) -> bool:
    return of.kind == "a" and of.members[0].kind == "y"


def _decode_string(view: memoryview) -> str:
    raw = bytes(view)
    if not raw.endswith(b"\0") or raw.find(b"\0") != len(raw) - 1:
        raise FormatError("a GVariant string does not end at its only NUL")
    try:
        return raw[:-1].decode()
    except UnicodeDecodeError as error:
        raise FormatError("a GVariant string is not UTF-8") from error


def check_text(kind: str, text: str) -> str:
    """Return a string; raise FormatError if it is to be an object path, ``o``, or a signature, ``g``, and is none."""
    if kind == "o" and not _is_path(text):
        raise FormatError(f"{text[:80]!a} is no object path")
    if kind == "g" and not _is_signature(text):
        raise FormatError(f"{text[:80]!a} is no signature")
    return text


def _is_path(text: str) -> bool:
    """Tell whether a string is an object path of D-Bus."""
    return text == "/" or (
        text[:1] == "/" and text.isascii() and all(part.replace("_", "a").isalnum() for part in text[1:].split("/"))
    )


def _is_signature(text: str) -> bool:
    """Tell whether a string is a signature of D-Bus, which has no maybes: any number of complete types."""
    end = 0
    try:
        while end < len(text):
            _, end = _parse_type(text, end, 0)
    except FormatError:
        return False
    return "m" not in text


def _offset_table(data: bytes | memoryview, most: int) -> tuple[int, str]:
    """Return where the offsets of an array's elements start, and how ``struct`` calls one; there are ``most``.

    It is the last offset itself that says where: if they are in order, none leads beyond the elements.
    """
    size = len(data)
    width = offset_size(size)
    table = int.from_bytes(data[size - width :], "little")
    if table >= size or (size - table) % width:
        raise FormatError("a GVariant array has a malformed offset table")
    if (size - table) // width > most:
        raise _too_many()
    return table, _OFFSETS[width]


def _byte_strings(data: bytes, most: int) -> list[bytes]:
    """Return the elements of an array of byte strings, all at once: ``ostree.sizes`` has one for each object."""
    if not data:
        return []
    table, offset = _offset_table(data, most)
    ends = struct.unpack(f"<{(len(data) - table) // struct.calcsize('<' + offset)}{offset}", data[table:])
    if list(ends) != sorted(ends):
        raise FormatError("a GVariant array has elements out of order")
    return [data[start:end] for start, end in zip((0, *ends), ends, strict=False)]


def array_elements(view: memoryview, alignment: int, most: int = MAX_VALUES) -> Iterator[memoryview]:
    """Yield the elements of an array that vary in size, not decoded; raise FormatError if the offsets are not in order.

    One at a time: a few bytes of the array can be an element, and would be an object of 200 bytes.
    """
    if not view:
        return
    table, offset = _offset_table(view, most)
    start = 0
    for (end,) in struct.iter_unpack(f"<{offset}", view[table:]):
        if end < start:
            raise FormatError("a GVariant array has elements out of order")
        yield view[start:end]
        start = _align(end, alignment)


def _too_many() -> FormatError:
    return FormatError(f"a GVariant has more than {MAX_VALUES} values")


def encode(signature: str, value: Any) -> bytes:
    """Serialise ``value`` as a type, in normal form."""
    return _encode(parse_type(signature), value)


def _encode(of: Type, value: Any) -> bytes:
    if of.kind in _FIXED:
        return struct.pack(_FIXED[of.kind], value)
    if of.kind in "sog":
        text: bytes = value.encode() + b"\0"
        return text
    if of.kind == "v":
        serialised = _encode(parse_type(value.signature), value.value)
        return b"%b\0%b" % (serialised, value.signature.encode())
    if of.kind == "m":
        if value is None:
            return b""
        return _encode(of.members[0], value[0]) + (b"" if of.members[0].size is not None else b"\0")
    if of.kind == "a":
        return _encode_array(of.members[0], value)
    return _encode_tuple(of, value)


def _encode_array(element: Type, value: Any) -> bytes:
    if element.kind == "y":
        return bytes(value)
    if _is_byte_string(element):
        return pack_array(list(map(bytes, value)))
    parts = []
    offsets = []
    position = 0
    for item in value.items() if element.kind == "{" else value:
        padding = -position % element.alignment
        part = _encode(element, item)
        position += padding + len(part)
        parts += [bytes(padding), part]
        offsets.append(position)
    if element.size is None:
        parts.append(pack_offsets(position, offsets))
    return b"".join(parts)


def _encode_tuple(of: Type, value: Any) -> bytes:
    parts = []
    offsets: list[int] = []
    position = 0
    for index, (member, item) in enumerate(zip(of.members, value, strict=True)):
        padding = -position % member.alignment
        part = _encode(member, item)
        position += padding + len(part)
        parts += [bytes(padding), part]
        if member.size is None and index < len(of.members) - 1:
            offsets.insert(0, position)
    if of.size is not None:
        parts.append(bytes(of.size - position))
    elif offsets:
        parts.append(pack_offsets(position, offsets))
    return b"".join(parts)
