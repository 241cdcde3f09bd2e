"""Messages held against their schemas, and a run in which all are, and have a field that nobody knows (P-9)."""

from __future__ import annotations

from composefs.ext.channel import Channel
from composefs.observe import Observers
from composefs.protocol import schemas
from composefs.protocol.limits import Limits
from composefs.protocol.wire import JSONValue, Message

__all__ = ["STRAY", "Strict", "validate"]

STRAY = "x-stray"
_STRAY = {STRAY: {"any": ["thing", 1, None, True]}}


def validate(name: str, value: JSONValue) -> None:
    """Check that a value fits a schema."""
    error = schemas.first_error(name, value)
    assert error is None, f"{name}: at {error.json_path}: {error.message[:400]}"


class Strict(Channel):
    """The channel of such a run."""

    def __init__(self, read_fd: int, write_fd: int, limits: Limits, observer: Observers) -> None:
        super().__init__(read_fd, write_fd, limits, observer)
        self._calls: dict[int, Message] = {}

    def next_message(self) -> Message:
        message = super().next_message()
        if "method" in message and type(message.get("id")) is int:
            self._calls[message["id"]] = message
        return message

    def send(self, message: Message, *, answer: bool = False) -> None:
        if answer:
            call = self._calls.pop(message["id"])
            if "result" in message:
                validate(call["method"], {"params": call["params"], "result": message["result"]})
        elif message["method"] == "initialize":
            message["params"]["strict"] = True
        for key in ("params", "result"):
            if type(message.get(key)) is dict:
                message = {**message, key: message[key] | _STRAY}
        super().send(message | _STRAY, answer=answer)
