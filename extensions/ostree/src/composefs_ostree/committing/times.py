"""The time of a commit: what ``--timestamp`` takes, with the meaning that ``ostree commit`` gives it.

These are the forms that say a date, of those that gnulib's parse_datetime reads (its manual describes them): nothing
relative, no years of two digits, no names of zones but those of RFC 5322, and a fraction of a second is cut off.
Beyond them there is the basic format of ISO 8601, 20260131T120000.
"""

from __future__ import annotations

import os
import re
import time

from composefs_ext import Request
from composefs_ext.errors import UsageError

__all__ = ["commit_time", "parse_time"]

_MAX_TIME = (1 << 63) - 1
_MIN_TIME = -1 << 63
_MAX_OFFSET = 24 * 3600
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ZONES = {"z": 0, "ut": 0, "utc": 0, "gmt": 0, "est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6,
          "pst": -8, "pdt": -7}  # fmt: skip
"""Hours east of Greenwich, of the zones that RFC 5322, 4.3, names."""

# The forms are compiled only when there is a time to read, which most commits do without.
_SECONDS = r"@\s*([+-]?[0-9]+)([.,][0-9]+)?"
_ZONE_NAME = f"(?P<zone>{'|'.join(_ZONES)})"
_ZONE = f"(?: *(?:{_ZONE_NAME}|(?P<sign>[+-])(?P<hours>[0-9]{{1,2}}?)(?::?(?P<minutes>[0-5][0-9]))?))?"
_CLOCK = "(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})(?:[.,][0-9]+)?)?)?"
_MONTH = f"(?P<name>{'|'.join(_MONTHS)})"
_WEEKDAY = "(?:(?:mon|tue|wed|thu|fri|sat|sun),? +)?"
_YEAR = "(?P<year>[0-9]{4})"
_DAY = "(?P<day>[0-9]{1,2})"
_BASIC = f"{_YEAR}(?P<month>[0-9]{{2}})(?P<day>[0-9]{{2}})"
_DATES = (
    f"{_YEAR}-(?P<month>[0-9]{{1,2}})-{_DAY}(?: *{_ZONE_NAME})?",
    f"{_YEAR}-(?P<month>[0-9]{{1,2}})-{_DAY}(?:t| +){_CLOCK}{_ZONE}",
    f"{_BASIC}(?:(?:t| +){_CLOCK}{_ZONE})?",
    f"{_BASIC}t(?P<hour>[0-9]{{2}})(?P<minute>[0-9]{{2}})(?P<second>[0-9]{{2}})?{_ZONE}",
    f"{_WEEKDAY}{_DAY} {_MONTH} {_YEAR}(?: +{_CLOCK}{_ZONE})?",  # RFC 5322 and date -R
    f"{_WEEKDAY}{_MONTH} +{_DAY} {_CLOCK}(?: {_ZONE_NAME})? {_YEAR}",  # asctime(3) and date
)


def commit_time(request: Request) -> int:
    """Return ``--timestamp``, else SOURCE_DATE_EPOCH, else now, as the number that a commit keeps."""
    text = request.get("timestamp")
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if text is not None or epoch is None:
        return parse_time("now" if text is None else text) % (1 << 64)
    if not epoch.isdecimal() or not epoch.isascii() or int(epoch) > _MAX_TIME:
        raise UsageError(f"SOURCE_DATE_EPOCH={epoch[:80]!r} is not a time after 1970")
    return int(epoch)


def parse_time(text: str) -> int:
    """Return the seconds since 1970 of a time, rounded down; without a zone it is local time, as TZ says.

    Raises UsageError if it is none, or one that the clocks here jump over.
    """
    bare = text.strip()
    if bare.lower() == "now":
        return int(time.time())
    if match := re.fullmatch(_SECONDS, bare):
        return _seconds(text, match)
    for form in _DATES:
        if match := re.fullmatch(form, bare, re.IGNORECASE | re.ASCII):
            return _moment(text, match.groupdict())
    raise _no_time(text)


def _seconds(text: str, match: re.Match[str]) -> int:
    whole, fraction = match.groups()
    digits = whole.lstrip("+-0") or "0"
    if len(digits) > len(str(_MAX_TIME)):
        raise _no_time(text)  # Python would not even make a number of thousands of digits
    seconds = int(digits)
    if whole.startswith("-"):
        seconds = -seconds - bool(fraction and fraction.strip(".,0"))
    if not _MIN_TIME <= seconds <= _MAX_TIME:
        raise _no_time(text)
    return seconds


def _moment(text: str, parts: dict[str, str | None]) -> int:
    from datetime import UTC, datetime

    name, zone = parts.get("name"), parts.get("zone")
    month = int(parts["month"] or 0) if name is None else 1 + _MONTHS.index(name.lower())
    day, hour, minute, second = (int(parts.get(part) or 0) for part in ("day", "hour", "minute", "second"))
    try:
        moment = datetime(int(parts["year"] or 0), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        raise _no_time(text) from None
    if sign := parts.get("sign"):
        offset = int(sign + "1") * (int(parts["hours"] or 0) * 3600 + int(parts["minutes"] or 0) * 60)
        if abs(offset) > _MAX_OFFSET:
            raise _no_time(text)
        return int(moment.timestamp()) - offset
    if zone is not None:
        return int(moment.timestamp()) - _ZONES[zone.lower()] * 3600
    return _local(text, moment.timetuple())


def _local(text: str, parts: time.struct_time) -> int:
    """Ask the C library, as ostree does: the two then agree on an hour that the clocks go through twice, too."""
    try:
        seconds = int(time.mktime((*parts[:8], -1)))
        is_there = time.localtime(seconds)[:6] == parts[:6]
    except (ValueError, OverflowError, OSError):
        raise _no_time(text) from None
    if not is_there:
        raise UsageError(
            f"there is no {text[:80]!r} in this time zone: the clocks are put forward then",
            hint="write the zone with it, such as 2026-01-31T12:00:00Z or 2026-01-31T12:00:00+01:00",
        )
    return seconds


def _no_time(text: str) -> UsageError:
    return UsageError(
        f"{text[:80]!r} is not a time",
        hint="write now, @SECONDS since 1970, or a date such as 2026-01-31, 2026-01-31T12:00:00Z "
        "or 2026-01-31 12:00:00 +01:00",
    )
