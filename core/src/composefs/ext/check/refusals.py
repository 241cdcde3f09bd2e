"""Which rule an extension broke when the core refuses a call that nobody meddled with."""

from __future__ import annotations

from composefs.ext.check.fields import LISTINGS
from composefs.protocol.wire import Message

__all__ = ["rule_broken"]


def rule_broken(method: str, params: Message, error: Message) -> int | None:
    """Return the number of the rule that an error of the core points to; None where it may be nobody's fault."""
    message = error["message"]
    match error["data"]["kind"]:
        case "permission":
            return 24 if "from" in params or method == "image.mount" else 23
        case "read_only":
            return 31
        case "missing_object":
            return 21
        case "corrupt" if "says that a file has" in message:
            return 20
        case "invalid" if method == "image.draft" and "does not end" in message:
            return 46
        case "invalid" if not method.startswith("image.") and message.startswith(("stream ", "image ")):
            return 21  # an object has the id, but is none
        case "invalid":
            return {"image": 19, "publish": 23, "object": 14}.get(method.partition(".")[0], 43)
        case "too_large":
            return 15 if method in LISTINGS else 14
        case "usage" if method == "stream.put" and "names an image" in message:
            return 22
        case "usage":
            return 18 if "hex digits" in message else 43
    return None
