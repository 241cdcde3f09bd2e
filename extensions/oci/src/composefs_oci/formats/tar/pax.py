r"""The records of a pax extended header: ``LENGTH KEY=VALUE\n``, where LENGTH counts all of the record, itself too."""

from __future__ import annotations

import re

from composefs_ext.errors import FormatError

__all__ = ["parse_decimal", "parse_records", "parse_time"]

_DIGITS = 20
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")
_NANO = 10**9


def parse_records(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records in their order.  Raises FormatError."""
    records = []
    start, end = 0, len(data)
    while start < end:
        space = data.find(b" ", start, start + _DIGITS)
        length = data[start:space]
        if space < 0 or not length.isdigit():
            raise FormatError("a pax header has a record without a length")
        stop = start + int(length)
        equals = data.find(b"=", space, stop)
        if stop > end or equals <= space + 1 or data[stop - 1] != 0x0A:
            raise FormatError("a pax header has a malformed record")
        records.append((data[space + 1 : equals], data[equals + 1 : stop - 1]))
        start = stop
    return records


def parse_decimal(value: bytes, key: str) -> int:
    """Parse the value of a record that is a number.  Raises FormatError."""
    if not value.isdigit() or len(value) > _DIGITS:
        raise FormatError(f"the pax record {key}={_shown(value)} is not a number")
    return int(value)


def parse_time(value: bytes) -> tuple[int, int]:
    """Return whole seconds, rounded down, and nanoseconds; more digits than nine are cut.  Raises FormatError."""
    match = _TIME.fullmatch(value)
    if match is None:
        raise FormatError(f"the pax record mtime={_shown(value)} is not a time")
    seconds, nanoseconds = int(match[2]), int((match[3] or b"")[:9].ljust(9, b"0"))
    if match[1]:
        return (-seconds - 1, _NANO - nanoseconds) if nanoseconds else (-seconds, 0)
    return seconds, nanoseconds


def _shown(value: bytes) -> str:
    return ascii(value[:40])[2:-1]
