"""Asking for a file only if it is another one than we have: ETag and Last-Modified (RFC 9110, section 13).

What is asked with must not be what any file to come would fit: a date that is still ahead, which no server may give
(section 8.8.2.1) but a wrong clock or somebody on the way does, and the tag ``*``.  Nor may the date be the second in
which the file was sent, or later, by the server's clock: one that replaces it in the same second has that date too
(section 8.8.2.2), and if it is of the same size, also the tag, as nginx makes them.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    Moment = tuple[int, int, int, str]
    """Year, month, day, and time of the day."""

__all__ = ["Conditions"]

_MAX_VALUE = 1024
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Conditions:
    """What tells one version of a file from another: before the request what we have, after it what the server has.

    ``unchanged`` tells that the server has what we have, and sent nothing.
    """

    def __init__(self, etag: str = "", last_modified: str = "") -> None:
        self.etag = etag
        self.last_modified = last_modified
        self.unchanged = False
        self._changed: Moment | None = None
        self._sent: Moment | None = None
        self._asked = {"If-None-Match": etag, "If-Modified-Since": last_modified}

    @property
    def are_set(self) -> bool:
        """Tell whether there is anything to ask with: a server that calls a file unchanged all the same is broken."""
        return any(self._asked.values())

    def headers(self) -> list[str]:
        """Return the request's headers."""
        return [f"{name}: {value}" for name, value in self._asked.items() if value]

    def take_header(self, line: bytes) -> None:
        """Take a line of the answer's header; those of a redirect are forgotten when the next answer begins."""
        if line.startswith(b"HTTP/"):
            self.etag = self.last_modified = ""
            self._changed = self._sent = None
            return
        name, _, value = line.decode("latin-1").partition(":")
        value = value.strip()
        if len(value) > _MAX_VALUE or not value.isascii() or not value.isprintable():
            value = ""
        match name.lower():
            case "etag" if _is_tag(value):
                self.etag = value
            case "last-modified":
                self._changed = _moment(value)
                has_passed = self._changed is not None and _has_passed(self._changed)
                self.last_modified = value if has_passed else ""
            case "date":
                self._sent = _moment(value)

    @property
    def is_useful(self) -> bool:
        """Tell whether the server gave something to ask with the next time."""
        if self._changed is not None and self._sent is not None and self._changed >= self._sent:
            return False
        return bool(self.etag or self.last_modified)


def _is_tag(value: str) -> bool:
    """Tell whether a value is one entity tag: text in quotes, before which there may be ``W/``."""
    before, quote, rest = value.partition('"')
    return before in ("", "W/") and quote == '"' and rest.find('"') == len(rest) - 1 >= 0


def _moment(date: str) -> Moment | None:
    """Return the moment of a date such as ``Sun, 06 Nov 1994 08:49:37 GMT``, None for one of another form."""
    try:
        _, day, month, year, clock, _ = date.split(" ")
        return int(year), _MONTHS.index(month) + 1, int(day), clock
    except ValueError:
        return None


def _has_passed(moment: Moment) -> bool:
    """Tell whether a moment has passed by this machine's clock: whoever alters a date may alter the server's too."""
    now = time.gmtime()
    return moment <= (*now[:3], time.strftime("%H:%M:%S", now))
