"""JSON from strangers: bounded in size and depth, without what two readers could read in two ways.

Manifests are named by the digest of their bytes and trusted by what is read from them, so a document that others would
read differently is refused: twice the same key, also but for capital letters where it counts, numbers that are not
finite, bytes that are not UTF-8.
"""

from __future__ import annotations

import json

from composefs_ext.errors import FormatError, TooLargeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["AGAIN", "MAX_DOCUMENT", "Fields", "parse_object"]

AGAIN = "have the image pushed or copied there again"
"""What to do about a document of an image that is not what it should be."""

MAX_DOCUMENT = 4 << 20
"""Bytes of a manifest, index or config; what registries take at most."""

_MAX_NUMBER = (1 << 53) - 1
_MAX_DEPTH = 64
_GZIP = b"\x1f\x8b"
_MAX_TEXT = 65536


def parse_object(data: bytes, what: str, remedy: str = AGAIN) -> Fields:
    """Read a document that is an object; raise FormatError or TooLargeError, which begin with ``what``.

    ``remedy`` is what to do about one that is damaged.
    """
    if len(data) > MAX_DOCUMENT:
        raise TooLargeError(f"{what} has {len(data)} bytes, more than {MAX_DOCUMENT}", hint=remedy, subject=what)
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_members, parse_constant=_refuse)
    except RecursionError:
        raise FormatError(f"{what} is nested too deeply", hint=remedy, subject=what) from None
    except ValueError as error:
        raise _no_json(data, what, error, remedy) from None
    if _is_too_deep(value):
        raise FormatError(f"{what} is nested more than {_MAX_DEPTH} deep", hint=remedy, subject=what)
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object", hint=remedy, subject=what)
    return Fields(value, what, remedy)


def _no_json(data: bytes, what: str, error: ValueError, remedy: str) -> FormatError:
    """Return the error for a document that is something else."""
    said = f"{what} is not JSON that can be trusted: {error}"
    hint = remedy
    if data.lstrip()[:1] == b"<":
        said = f"{what} is a web page, not a document in JSON"
        hint = "check the name; a network that wants a login may answer with its own page for everything"
    elif data.startswith(_GZIP):
        said = f"{what} is compressed, not a document in JSON"
        hint = "a server or a proxy compresses what nobody asked it to; tell who runs it"
    return FormatError(said, hint=hint, subject=what)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has the same key twice")
    return members


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


class Fields:
    """An object of a document, whose fields are taken out by type; ``where`` leads to it in messages, with the remedy.

    A missing field and one that is null are the same, as they are for the programs that write these documents.
    """

    __slots__ = ("_object", "_remedy", "where")

    def __init__(self, value: dict[str, Any], where: str, remedy: str) -> None:
        self._object = value
        self._remedy = remedy
        self.where = where

    def fail(self, key: str, reason: str) -> FormatError:
        """Return the error for a field."""
        return FormatError.at(self.where, f"{key} {reason}", hint=self._remedy)

    def __contains__(self, key: str) -> bool:
        return self._object.get(key) is not None

    def check_spelling(self, *names: str) -> None:
        """Raise FormatError for a field that differs from one of these in capital letters: Go's readers mix them up."""
        known = {name.casefold(): name for name in names}
        for key in self._object:
            name = known.get(key.casefold(), key)
            if name != key:
                raise self._ambiguous(name)

    def check_once(self, name: str) -> None:
        """Raise FormatError for a field that is there twice but for capital letters."""
        folded = name.casefold()
        if sum(key.casefold() == folded for key in self._object) > 1:
            raise self._ambiguous(name)

    def _ambiguous(self, key: str) -> FormatError:
        reason = "is there with other capital letters, so that programs differ about it"
        return FormatError.at(
            self.where, f"{key} {reason}", hint="have it made again, with the keys that the OCI specification has"
        )

    def keys(self) -> list[str]:
        """Return the names of all fields."""
        return list(self._object)

    def text(self, key: str, default: str | None = None) -> str:
        """Return a string of a reasonable length."""
        value = self._object.get(key)
        if value is None:
            value = default
        if not isinstance(value, str):
            raise self.fail(key, "is missing" if value is None else "is not a string")
        if len(value) > _MAX_TEXT:
            raise self.fail(key, f"has more than {_MAX_TEXT} characters")
        return value

    def number(self, key: str) -> int:
        """Return a size or version: an integer between 0 and 2^53 − 1."""
        value = self._object.get(key)
        if type(value) is not int:
            raise self.fail(key, "is missing" if value is None else "is not an integer")
        if not 0 <= value <= _MAX_NUMBER:
            raise self.fail(key, f"is not between 0 and {_MAX_NUMBER}")
        return value

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        """Return a list of at most so many strings; none if it is missing."""
        return tuple(self._elements(key, most, str))

    def mapping(self, key: str) -> dict[str, str]:
        """Return an object whose values are all strings; an empty one if it is missing."""
        value = self._object.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(inner, str) for inner in value.values()):
            raise self.fail(key, "is not an object of strings")
        return value

    def inner(self, key: str) -> Fields | None:
        """Return an object; None if it is missing."""
        value = self._object.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.fail(key, "is not an object")
        return Fields(value, f"{self.where}: {key}", self._remedy)

    def objects(self, key: str, most: int) -> list[Fields]:
        """Return a list of at most so many objects; an empty one if it is missing."""
        elements = self._elements(key, most, dict)
        return [Fields(value, f"{self.where}: {key}[{number}]", self._remedy) for number, value in enumerate(elements)]

    def _elements(self, key: str, most: int, kind: type) -> list[Any]:
        value = self._object.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.fail(key, "is not a list")
        if len(value) > most:
            raise self.fail(key, f"has {len(value)} elements, more than {most}")
        if not all(isinstance(element, kind) for element in value):
            raise self.fail(key, "holds something of another type")
        return value
