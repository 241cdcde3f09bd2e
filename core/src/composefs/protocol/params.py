"""Checks of a call's parameters, by hand: the run path cannot afford to import jsonschema.

Each function takes the ``params`` object and a field's name and returns the field checked, or raises UsageError, which
answers that one call.  Unknown fields are never looked at (P-9).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

from composefs.errors import UsageError
from composefs.protocol.limits import MAX_NAME
from composefs.protocol.wire import JSONValue, Message, encode

__all__ = [
    "boolean",
    "check_id",
    "check_ids",
    "choice",
    "content_type",
    "integer",
    "mapping",
    "one_of",
    "shown",
    "staged_name",
    "string",
]

_SHOWN = 140
"""Characters that are shown: a whole id, and a little more."""

RESERVED_PREFIX = "core-"
"""Staged names that begin so are the core's."""

# One expression decides a name, as it runs for every staged file.
_STAGED_NAME = re.compile(rf"(?!\.|{RESERVED_PREFIX})[A-Za-z0-9._-]{{1,{MAX_NAME}}}\Z")
_HEX_DIGITS = b"0123456789abcdef"
_HEX = re.compile(r"[0-9a-f]+\Z")
_CONTENT_TYPE = re.compile(r"[0-9a-f]{16}\Z")

Word = TypeVar("Word", bound=str)


def string(params: Message, key: str, default: str | None = None) -> str:
    """A text; required unless there is a default."""
    value = params.get(key, default)
    if type(value) is not str:
        raise UsageError(f"{key} is not a string" if key in params else f"{key} is missing")
    return value


def integer(params: Message, key: str, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    value = params.get(key)
    if type(value) is not int or not low <= value <= high:
        raise UsageError(f"{key} is not an integer from {low} to {high}" if key in params else f"{key} is missing")
    return value


def boolean(params: Message, key: str) -> bool:
    """True or false; false if the field is missing."""
    value = params.get(key, False)
    if type(value) is not bool:
        raise UsageError(f"{key} is not true or false")
    return value


def choice(params: Message, key: str, choices: Sequence[Word], default: Word | None = None) -> Word:
    """One of a closed set of words."""
    value = string(params, key, default)
    for word in choices:
        if value == word:
            return word
    raise UsageError(f"{key} is not one of {', '.join(choices)}")


def mapping(params: Message, key: str) -> Message:
    """An object; empty if the field is missing."""
    value = params.get(key, {})
    if type(value) is not dict:
        raise UsageError(f"{key} is not an object")
    return value


def shown(value: JSONValue) -> str:
    """What came, for a message: a text in quotes, and all else as it is in JSON; of what is long, the beginning."""
    text = value if type(value) is str else encode(value).decode().strip()
    begun = text[:_SHOWN]
    return (repr(begun) if text is value else begun) + "…" * (len(text) > _SHOWN)


def staged_name(value: JSONValue, key: str) -> str:
    """The name of a file in staging: flat, short, and not one of the core's."""
    if type(value) is not str or not _STAGED_NAME.match(value):
        raise UsageError(
            f"{key}: {shown(value)} is not the name of a staged file",
            hint=f"1 to {MAX_NAME} of A-Z a-z 0-9 . _ -, beginning neither with . nor with {RESERVED_PREFIX}",
        )
    return value


def check_id(value: JSONValue, hex_size: int, key: str) -> str:
    """An object's id: ``hex_size`` lower-case hexadecimal digits."""
    if type(value) is not str or len(value) != hex_size or not _HEX.match(value):
        raise UsageError(f"{key}: {shown(value)} is not an id of {hex_size} lower-case hex digits")
    return value


def check_ids(values: Sequence[JSONValue], hex_size: int, key: str) -> None:
    """Check many ids.  All at once takes a twentieth of the time, and pulls ask for tens of thousands."""
    # What is left without the digits is one table look-up a byte, a tenth of what a pattern takes.
    if all(type(value) is str and len(value) == hex_size for value in values) and not (
        "".join(values).encode("ascii", "replace").translate(None, _HEX_DIGITS)
    ):
        return
    for value in values:
        check_id(value, hex_size, key)


def content_type(params: Message) -> int:
    """A splitstream's content type, the field of that name: 16 hexadecimal digits on the wire, a number here."""
    value = string(params, "content_type")
    if not _CONTENT_TYPE.match(value):
        raise UsageError(f"content_type: {shown(value)} is not 16 lower-case hex digits")
    return int(value, 16)


def one_of(params: Message, *keys: str) -> tuple[str, JSONValue]:
    """The one field present of several that exclude one another, as (key, value)."""
    present = [key for key in keys if params.get(key) is not None]
    if len(present) != 1:
        raise UsageError(f"give exactly one of {', '.join(keys)}")
    return present[0], params[present[0]]
