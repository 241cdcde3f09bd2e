"""Framing and JSON: bytes of a pipe to messages and back (docs/protocol.md, P-1 to P-4).

A message is one JSON object in UTF-8 on a line.  What arrives may be hostile: lines are bounded before they are kept,
numbers that another JSON implementation would round are refused, and nesting is bounded.  Every breach is a
ProtocolError, which ends the session.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from composefs.errors import ProtocolError
from composefs.protocol.limits import MAX_DEPTH, MAX_INTEGER

__all__ = [
    "SCALARS",
    "JSONValue",
    "LineReader",
    "Message",
    "decode",
    "depth_exceeds",
    "encode",
    "encode_scalars",
    "parse_json",
]

JSONValue = Any
"""Whatever JSON can say; checked by whoever takes it apart."""

Message = dict[str, JSONValue]

SCALARS = frozenset({str, int, bool, type(None)})
"""The types of what has nothing in it, which :func:`encode_scalars` takes."""

_SAFE_DIGITS = len(str(MAX_INTEGER))


class LineReader:
    """Cut a byte stream into lines, wherever chunks end; a line longer than ``limit``, newline included, is fatal."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()

    @property
    def pending(self) -> bytes:
        """What has come of a line that has not ended."""
        return bytes(self._pending)

    def feed(self, data: bytes) -> list[bytes]:
        """Take a chunk and return the lines, without newline, that end in it."""
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._pending:
            lines[0] = bytes(self._pending) + lines[0]
            self._pending.clear()
        self._pending += rest
        limit = self._limit
        if len(self._pending) >= limit or any(len(line) >= limit for line in lines):
            raise ProtocolError(f"a message is longer than {limit} bytes")
        return lines


def _integer(text: str) -> int:
    # Called for every integer of every message: the length settles all but the largest.
    if len(text) < _SAFE_DIGITS:
        return int(text)
    if len(text) > _SAFE_DIGITS + 1 or abs(value := int(text)) > MAX_INTEGER:
        raise ValueError(f"integer {text[:40]} is beyond ±(2^53−1)")
    return value


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:40]} is beyond the range of a double")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_decoder = json.JSONDecoder(parse_int=_integer, parse_float=_float, parse_constant=_constant)
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False)
_line_encoder = json.JSONEncoder(separators=("\n", ":"), check_circular=False)


def depth_exceeds(value: JSONValue, limit: int) -> bool:
    """Say whether arrays and objects in ``value`` are nested more than ``limit`` deep."""
    # A level at a time: one comprehension for all rows of a list takes a third of a call for each.
    level = [value] if type(value) is dict or type(value) is list else []
    while level and limit:
        limit -= 1
        level = [
            child
            for each in level
            for child in (each.values() if type(each) is dict else each)
            if type(child) is dict or type(child) is list
        ]
    return bool(level)


def parse_json(data: bytes) -> JSONValue:
    """Parse UTF-8 JSON of any type.  Raises ValueError with a reason that quotes none of the data at length."""
    try:
        value = _decoder.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    # Nesting is walked only where there are brackets enough to nest.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and depth_exceeds(value, MAX_DEPTH):
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def decode(line: bytes) -> Message:
    """Parse a line into a message object; anything else is a ProtocolError."""
    try:
        message = parse_json(line)
    except ValueError as error:
        reason = getattr(error, "msg", error)  # of the decoder's own, without the place: what is there is shown
        raise ProtocolError(
            f"a line on standard output is not a JSON message ({reason}): {_shown(line, getattr(error, 'pos', 0))}",
            hint="messages go there whole, text for people to standard error",
        ) from None
    if type(message) is not dict:
        raise ProtocolError(f"a message is not a JSON object: {_shown(line)}")
    return message


def encode(message: Message) -> bytes:
    """Format a message as a line, newline included, in ASCII."""
    return _encoder.encode(message).encode("ascii") + b"\n"


def encode_scalars(values: list[JSONValue]) -> bytes:
    """Format strings, integers, truth values and nulls as lines, in one call."""
    # Between the elements of a list the encoder puts newlines; inside of a string it escapes them.
    return _line_encoder.encode(values)[1:-1].encode("ascii") + b"\n"


def _shown(line: bytes, at: int = 0) -> str:
    """Quote a line; of a long one what is around a character, as what a short write lost is missed only there."""
    text = line.decode("utf-8", "replace")
    start = max(0, at - 40)
    return ("…" if start else "") + ascii(text[start : start + 60]) + ("…" if len(text) > start + 60 else "")
