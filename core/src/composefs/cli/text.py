"""Text for people: what came from elsewhere made safe to show, and numbers with their nouns and units.

Names, messages and labels come from extensions, images and the network.  A terminal obeys escape sequences in them
(ECMA-48: CSI, OSC and the like, in their 7-bit and 8-bit forms), and bidirectional overrides (Unicode TR 36, 3.4)
make a line read as something else than it says; both are taken out before anything is written to a terminal.
"""

from __future__ import annotations

import re

__all__ = ["counted", "escaped", "one_line", "printable", "shortened", "size_text"]

_UNSAFE = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"  # CSI: colours, cursor movement
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
    "|\x1b[ -/]*[0-~]?"  # every other escape
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # control characters but tab and newline
    "|[\udc80-\udc9f]"  # bytes that are not UTF-8, and control characters to a terminal that does not use it
    "|[\ud800-\udc7f\udd00-\udfff]"  # halves of characters, which JSON can spell and nothing can write
    "|[\u202a-\u202e\u2066-\u2069]"  # bidirectional overrides and isolates
)
_UNSAFE_IN_JSON = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_MESSAGE = 6000
_MESSAGE_END = 1000
"""Characters of a message, and how many of them are its end: no path of the system is too long for that."""


def printable(text: str) -> str:
    """Remove what a terminal would obey instead of show; tabs and line ends stay."""
    return _UNSAFE.sub("", text)


def escaped(document: str) -> str:
    """Escape in a JSON document what a terminal would obey instead of show; it says the same as before."""
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def one_line(text: str) -> str:
    """Make text printable and join its lines by one space, so that it cannot pass for a line of ours."""
    return " ".join(printable(text.replace("\r", "\n")).split("\n")).strip()


def shortened(text: str) -> str:
    """Make a message one line without the middle of one that is too long for anybody, as a name may have any length."""
    line = one_line(text)
    return line if len(line) <= _MESSAGE else f"{line[: -_MESSAGE_END + _MESSAGE]} … {line[-_MESSAGE_END:]}"


def counted(number: int, noun: str) -> str:
    """Return how many there are of what a regular noun names, ``1 object`` or ``2 objects``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size_text(count: int) -> str:
    """Return bytes in the unit of which there are fewer than 1024, ``12.3 MiB``."""
    if count < 1024:
        return counted(count, "byte")
    size = count / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
