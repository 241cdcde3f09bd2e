"""What ``ostree commit --timestamp`` takes for a time.  The interop tests hold the same against ostree."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from composefs_ext.errors import UsageError
from composefs_ostree.committing.times import parse_time
from composefs_ostree.dates import date, day

MOMENT = 1704164645  # 2024-01-02 03:04:05 UTC
NEW_YORK = "EST5EDT,M3.2.0,M11.1.0"


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be five hours west of Greenwich, for a zone that is forgotten to show."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", NEW_YORK)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "@1704164645",
        "@+1704164645",
        " @ 1704164645 ",
        "@1704164645.999",
        "@" + "0" * 5000 + "1704164645",
        "2024-01-02T03:04:05Z",
        "2024-01-02t03:04:05z",
        "2024-01-02 03:04:05Z",
        "2024-01-02 03:04:05 UTC",
        "2024-1-2  3:4:5 gmt",
        "2024-01-02T03:04:05.999999999Z",
        "2024-01-02T03:04:05,9+00:00",
        "2024-01-02T04:04:05+01:00",
        "2024-01-02T04:04:05+1",
        "2024-01-02 08:34:05 +0530",
        "2024-01-02T02:34:05-0:30",
        "2024-01-01T03:04:05-24:00",
        "20240102T030405Z",
        "20240102 03:04:05Z",
        "Tue, 02 Jan 2024 03:04:05 +0000",
        "Tue, 2 Jan 2024 03:04:05 -0000",
        "1 Jan 2024 22:04:05 EST",
        "Tue Jan  2 03:04:05 UTC 2024",
        # Local time.
        "2024-01-01T22:04:05",
        "2024-01-01 22:04:05.5",
        "20240101T220405",
        "Mon Jan  1 22:04:05 2024",
        "Mon, 1 Jan 2024 22:04:05",
    ],
)
def test_a_moment_can_be_written_in_many_ways(text: str) -> None:
    assert parse_time(text) == MOMENT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-01-02", 1704171600),
        ("2024-01-02Z", 1704153600),
        ("20240102", 1704171600),
        ("2024-01-02 03", 1704182400),
        ("2024-01-02T03:04", 1704182640),
        ("2024-01-02T03+01", 1704160800),
        ("2024-07-02T03:04:05", 1719903845),
        ("9999-12-31T23:59:59Z", 253402300799),
        ("@0", 0),
        ("@-0.0", 0),
        ("@-0.5", -1),
        ("@-1", -1),
        ("@-1.0", -1),
        ("@-1.5", -2),
        ("1969-12-31T23:59:59Z", -1),
        ("1969-12-31T18:59:59", -1),
        ("@9223372036854775807.5", 2**63 - 1),
        ("@-9223372036854775808", -(2**63)),
    ],
)
def test_what_is_not_written_is_nothing_and_fractions_are_rounded_down(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["now", "NOW", " now\n"])
def test_now_is_now(text: str) -> None:
    before = int(time.time())
    assert before <= parse_time(text) <= int(time.time())


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "@x", "@1e3", "@1_000", "@0x10", "@\u0663", "@--1", "1704164645", "@9223372036854775808"),
        *("@-9223372036854775809", "@-9223372036854775808.5", "@" + "9" * 5000, "soon", "now 2024-01-02"),
        *("yesterday", "2 hours ago", "2024-01-02 1 day", "03:04", "24-01-02", "2024-W01-2", "2024-001"),
        *("2024-02-30", "2023-02-29", "2024-13-01", "2024-00-01", "2024-01-00", "0000-01-01", "10000-01-01"),
        *("2024-01-02T24:00", "2024-01-02T03:60", "2024-01-02T03:04:60Z", "2024-01-02T03:04:05."),
        *("2024-01-02T03:04:05+24:01", "2024-01-02T03:04:05+01:60", "2024-01-02T03:04:05+01:00:00"),
        *("2024-01-02-05:00", "2024-01-02+01:00", "2024-01-02x03:04", "2024-01-02T03:04 XYZ", "2024-01-02T"),
        *("Tue, 02 Jan 2024 03:04:05 CET", "Tue 2 Jan 03:04:05 UTC 2024", "2024-01-02" + " " * 100_000 + "x"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time") as caught:
        parse_time(text)
    assert "@SECONDS" in str(caught.value.hint)


@pytest.mark.parametrize("text", ["2024-03-10T02:30:00", "Sun, 10 Mar 2024 02:30"])
def test_an_hour_that_the_clocks_jump_over_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="put forward") as caught:
        parse_time(text)
    assert "the zone" in str(caught.value.hint)
    assert parse_time("2024-03-10T02:30:00-05:00") == 1710055800


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "1970-01-01 00:00:00 UTC"),
        (MOMENT, "2024-01-02 03:04:05 UTC"),
        (2**64 - 1, "1969-12-31 23:59:59 UTC"),
        (2**63 - 1, "9223372036854775807 s after 1970-01-01"),
        (2**63, "9223372036854775808 s after 1970-01-01"),
    ],
)
def test_the_times_of_commits_are_shown_with_their_sign(number: int, shown: str) -> None:
    assert date(number) == shown


@pytest.mark.parametrize(("seconds", "text"), [(MOMENT, "2024-01-02"), (1e17, "100000000000000000 s after 1970-01-01")])
def test_a_day_that_no_calendar_has(seconds: float, text: str) -> None:
    """Where the C library's seconds have 32 bits it is one after January 2038, which a signature may name."""
    assert day(seconds) == text
