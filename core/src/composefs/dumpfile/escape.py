r"""Escapes of composefs-dump(5): how arbitrary bytes are written in a line of printable ASCII.

``\\``, ``\n``, ``\r``, ``\t`` and ``\xHH``.  The writer escapes every byte outside of 0x21..0x7e, the backslash, and
``=`` in attributes, where the first raw one separates name and value.  The reader takes any other byte as it is.

A whole text is first proved to have legal escapes only.  After that a field needs no checks, and Python's own
``unicode_escape`` codec, which knows all five, undoes them; a callback for each escape costs five times as much.
"""

from __future__ import annotations

import re

__all__ = ["BACKSLASH", "escape", "escape_attribute", "find_bad_escape", "is_plain", "unescape"]

BACKSLASH = ord("\\")
"""To look for in a field: `in` takes ten times as long with bytes, because it tries first whether they are a number."""

# Searching for a backslash is memchr and a look ahead; matching all of a text as legal takes four times as long.
_ILLEGAL = re.compile(rb"\\(?!x[0-9a-fA-F]{2}|[nrt])")

_FEW = 5000
"""Escaped backslashes that are skipped one by one; a copy of the text without them costs as much as so many."""

_MUST_ESCAPE = re.compile(rb"[^!-\[\]-~]")
_MUST_ESCAPE_ATTRIBUTE = re.compile(rb"[^!-<>-\[\]-~]")

_ESCAPES = {byte: f"\\x{byte:02x}" for byte in (*range(0x21), *range(0x7F, 0x100))}
_ESCAPES |= {ord("\\"): r"\\", ord("\n"): r"\n", ord("\r"): r"\r", ord("\t"): r"\t"}
_ESCAPES_ATTRIBUTE = _ESCAPES | {ord("="): r"\x3d"}


def find_bad_escape(text: bytes) -> int | None:
    """Return the position of the first illegal escape or raw NUL, or None."""
    nul = text.find(b"\0")
    illegal = _ILLEGAL.search(text)
    # Perhaps an escaped backslash, which few texts have.  They go in pairs from the left, so what is left of a run of
    # them starts an escape of another kind.
    for _ in range(_FEW):
        if illegal is None or text[illegal.end() : illegal.end() + 1] != b"\\":
            break
        illegal = _ILLEGAL.search(text, illegal.end() + 1)
    else:
        if illegal is not None:
            illegal = _ILLEGAL.search(text.replace(b"\\\\", b"__"), illegal.start())
    positions = [nul] if nul >= 0 else []
    if illegal is not None:
        positions.append(illegal.start())
    return min(positions, default=None)


def unescape(field: bytes) -> bytes:
    """Undo the escapes of a field that `find_bad_escape` found nothing in."""
    return field.decode("unicode_escape").encode("latin-1") if BACKSLASH in field else field


def is_plain(raw: bytes) -> bool:
    """Tell whether `escape` leaves raw bytes as they are."""
    return _MUST_ESCAPE.search(raw) is None


def escape(raw: bytes) -> bytes:
    """Escape a path, target or content; a field that is a lone ``-`` is the caller's to spell."""
    if _MUST_ESCAPE.search(raw) is None:
        return raw
    return raw.decode("latin-1").translate(_ESCAPES).encode("ascii")


def escape_attribute(raw: bytes) -> bytes:
    """Escape an extended attribute's name or value."""
    if _MUST_ESCAPE_ATTRIBUTE.search(raw) is None:
        return raw
    return raw.decode("latin-1").translate(_ESCAPES_ATTRIBUTE).encode("ascii")
