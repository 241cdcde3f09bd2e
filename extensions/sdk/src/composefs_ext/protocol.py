"""The protocol as this SDK knows it: its version, the features that may be agreed, and the core's limits.

The core announces its limits in ``initialize``; where it is silent, these hold (docs/protocol.md, "Limits").
"""

from __future__ import annotations

__all__ = [
    "DRAFTS",
    "FEATURES",
    "LINE_LIMIT",
    "PACKS",
    "PROGRESS_PER_SECOND",
    "PROTOCOL_VERSION",
    "RANGE_BYTES",
    "RESULT_FILE",
    "ROWS",
    "SIZES",
    "UNANSWERED",
]

PROTOCOL_VERSION = 1

RESULT_FILE = "result_file"
"""The feature by which a result that is too long for a message is a staged file."""
PACKS = "packs"
"""The feature by which an object may be a range of a staged file."""
DRAFTS = "drafts"
"""The feature by which a dump may come in parts."""
SIZES = "sizes"
"""The feature by which the sizes of a stream's objects may be asked for."""
FEATURES = (RESULT_FILE, PACKS, DRAFTS, SIZES)
"""All features that are known here."""

LINE_LIMIT = 1 << 20
"""Bytes of the longest line, its newline included."""
UNANSWERED = 64
"""Calls that may be without an answer."""
ROWS = 1000
"""Rows of a list inside a message."""
PROGRESS_PER_SECOND = 10
"""Messages about one progress in a second."""
RANGE_BYTES = 256 << 10
"""Bytes of an object that is a range of a staged file."""
