"""Framing: one JSON-RPC 2.0 object a line, UTF-8, at most 1 MiB (docs/protocol.md, P-1 to P-4).

Only bytes and dictionaries here; descriptors, calls and answers are in ``connection``.
"""

from __future__ import annotations

from composefs_ext.errors import ProtocolError, TooLargeError
from composefs_ext.protocol import LINE_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["LineBuffer", "decode", "encode", "to_json"]

try:
    # What json does its work with.  Around it, json compiles regular expressions, and re loads enum and functools: 8 of
    # the 35 ms in which an extension starts.
    from _json import encode_basestring, make_encoder, make_scanner

    class _Settings:
        """What json's decoder tells its scanner."""

        strict = True
        object_hook = object_pairs_hook = array_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float  # of NaN, Infinity and -Infinity

    _scan = make_scanner(_Settings)  # type: ignore[arg-type]  # any object with these attributes

    def _default(value: object) -> NoReturn:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

    def _encode(value: Any) -> str:
        return "".join(make_encoder({}, _default, encode_basestring, None, ":", ",", False, False, False)(value, 0))

    def _decode(line: bytes) -> Any:
        text = line.decode("utf-8", "surrogatepass").strip(" \t\r\n")
        try:
            value, end = _scan(text, 0)
        except StopIteration as error:
            raise ValueError(f"nothing at {error.value}") from None
        except SystemError:  # it has its error from json.decoder, which Python before 3.13 does not load for that
            raise ValueError("malformed") from None
        if end != len(text):
            raise ValueError(f"more at {end}")
        return value

    _encode(None)
except (ImportError, AttributeError, TypeError):  # it is CPython's own affair, and may become another one
    import json

    _encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

    def _encode(value: Any) -> str:
        return _encoder.encode(value)

    def _decode(line: bytes) -> Any:
        return json.loads(line)


def to_json(value: dict[str, Any]) -> bytes:
    """Return JSON in UTF-8, of any length and on one line."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:
        # A lone surrogate (a path that is no UTF-8, say) cannot travel as UTF-8; as an escape it can.
        import json

        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def encode(message: dict[str, Any]) -> bytes:
    """Return the line for a message; raise TooLargeError when it would be over the limit."""
    line = to_json(message) + b"\n"
    if len(line) > LINE_LIMIT:
        raise TooLargeError(
            f"{message.get('method', 'an answer')}: a message of {len(line)} bytes is over the limit of {LINE_LIMIT}",
            hint="pass long lists as staged files",
        )
    return line


def decode(line: bytes) -> dict[str, Any]:
    """Parse one line without its newline; raise ProtocolError when it is not one JSON object."""
    try:
        message = _decode(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"the core sent a line that is not JSON: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"the core sent {line[:80]!r} where a JSON object was due")
    return message


class LineBuffer:
    """Cuts a stream of reads into lines, however the reads fall."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Take what one read returned; return the lines that it completes, without their newlines."""
        *lines, rest = (self._rest + data).split(b"\n")
        if len(rest) >= LINE_LIMIT or any(len(line) >= LINE_LIMIT for line in lines):
            raise ProtocolError(f"the core sent a line of more than {LINE_LIMIT} bytes")
        self._rest = rest
        return lines
