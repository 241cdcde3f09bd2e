"""Errors on the wire: ComposefsError to a JSON-RPC error object and back (docs/protocol.md, "Errors").

The kind is what programs go by; ``code`` only says which layer refused: JSON-RPC's own numbers for an unknown method
and wrong parameters, −32000 for everything else.  Text that comes from the other side is made harmless to a terminal.
"""

from __future__ import annotations

from composefs.errors import ComposefsError, ProtocolError, UnsupportedError, UsageError, error_of_kind
from composefs.protocol.wire import JSONValue, Message

__all__ = ["METHOD_NOT_FOUND", "from_wire", "printable", "row_error", "to_wire"]

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
OTHER = -32000

MAX_TEXT = 4096
"""Characters of a message, hint, subject or log line that are kept."""
MAX_CAUSES = 16

_CONTROL = dict.fromkeys((*range(32), *range(127, 160), *range(0xD800, 0xE000)), "�")
_CONTROL |= dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), "�")  # a line reads otherwise than it is
_CONTROL |= {ord("\n"): "\n", ord("\t"): "\t"}


def printable(text: str, limit: int = MAX_TEXT) -> str:
    """Shorten text of the other side; replace control characters, bidirectional overrides and lone surrogates in it."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isascii() and text.isprintable() else text.translate(_CONTROL)


def to_wire(error: ComposefsError, *, code: int | None = None) -> Message:
    """Return the ``error`` object for an answer."""
    data: Message = {"kind": error.kind}
    if error.hint:
        data["hint"] = error.hint
    if error.subject:
        data["subject"] = error.subject
    if error.retryable:
        data["retryable"] = True
    if error.causes:
        data["causes"] = list(error.causes[:MAX_CAUSES])
    if code is None:
        code = INVALID_PARAMS if isinstance(error, UsageError) else OTHER
    return {"code": code, "message": error.message, "data": data}


def row_error(error: ComposefsError) -> Message:
    """Return the ``error`` object of one row of a batch: the kind beside the message, without a code."""
    row = to_wire(error)
    return {"message": row["message"], **row["data"]}


def from_wire(error: JSONValue) -> ComposefsError:
    """Build the exception that the other side's ``error`` object describes; a malformed one is a ProtocolError."""
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return ProtocolError("the extension answered with an error that has no message")
    data = error.get("data")
    if not isinstance(data, dict):
        data = {}
    kind = data.get("kind")
    if isinstance(kind, str):
        cls = error_of_kind(kind)
    else:
        code = error.get("code")
        known = {METHOD_NOT_FOUND: UnsupportedError, INVALID_PARAMS: UsageError}
        cls = known.get(code, ComposefsError) if isinstance(code, int) else ComposefsError
    causes = data["causes"] if isinstance(data.get("causes"), list) else []
    return cls(
        printable(error["message"].strip()) or "the extension gave no reason",
        hint=_optional_text(data.get("hint")),
        subject=_optional_text(data.get("subject")),
        causes=tuple(printable(cause) for cause in causes[:MAX_CAUSES] if isinstance(cause, str)),
        retryable=data.get("retryable") is True,
    )


def _optional_text(value: JSONValue) -> str | None:
    return printable(value) if isinstance(value, str) and value else None
