"""The limits of a session: one table, announced in ``initialize.limits`` (docs/protocol.md, "Limits")."""

from __future__ import annotations

from composefs.tuples import NamedTuple

__all__ = ["MAX_DEPTH", "MAX_INTEGER", "MAX_NAME", "Limits"]

MAX_INTEGER = 2**53 - 1
"""Integers on the wire are within ±this: what every JSON implementation keeps exact."""

MAX_DEPTH = 32
"""How deep arrays and objects may be nested in a message."""

MAX_NAME = 128
"""Bytes of a staged file's name."""


class Limits(NamedTuple):
    """What an extension may ask of the core, by the names in ``initialize``.  Sizes in bytes; ``line`` has its newline.

    ``unanswered`` calls may be outstanding; ``rows`` is the length of a list inside a message and ``file_rows`` of one
    in a file.  ``dump_bytes`` bounds a dump, which is read whole, and ``dump_entries`` its lines and different
    attributes, which take up to 1.3 KB of memory each, 2.6 GB in all.  Of files with objects no more lines fit into
    ``dump_bytes``, and the images of distributions have less than half; but of the shortest lines ten times as many
    would.  ``stream_bytes`` bounds a stream's inline file, which is not read whole, ``references`` each list of ids of
    a stream, ``range_bytes`` an object in a pack.

    Staging may hold ``staging_files`` with ``staging_bytes`` in all, checked about once a second while that takes
    little time.  More than ``progress_per_second`` messages for one id are coalesced, log lines after ``log_lines``
    dropped.
    """

    line: int = 1 << 20
    unanswered: int = 64
    rows: int = 1000
    file_rows: int = 4_000_000
    dump_bytes: int = 512 << 20
    dump_entries: int = 2_000_000
    stream_bytes: int = 4 << 30
    references: int = 4_000_000
    range_bytes: int = 256 << 10
    staging_bytes: int = 64 << 30
    staging_files: int = 100_000
    progress_per_second: int = 10
    log_lines: int = 10_000
