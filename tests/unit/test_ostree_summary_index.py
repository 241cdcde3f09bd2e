"""Flatpak's summary index, the deltas of summaries, and what is kept of them."""

from __future__ import annotations

import contextlib
import gzip
import os
import struct
import time
import tracemalloc
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs_ext.errors import FormatError, TooLargeError
from composefs_ostree.fetching.conditional import Conditions
from composefs_ostree.formats import gvariant
from composefs_ostree.remotes.index import Subset, apply_summary_delta, gunzip, parse_index
from composefs_ostree.remotes.kept import Kept, keep, load
from composefs_ostree.remotes.summaries import subset_of

A, B = bytes(range(32)), bytes(32)


def delta(operations: list[tuple[int, int]], data: bytes = b"") -> bytes:
    numbers = [kind << 28 | length for kind, length in operations]
    return b"xadf" + struct.pack(f"<I{len(numbers)}I", len(numbers), *numbers) + data


def test_an_index() -> None:
    data = gvariant.encode("(a{s(ayaaya{sv})}a{sv})", ({"x86_64": (A, [B], {}), "arm": (B, [], {})}, {}))
    assert parse_index(data)[0] == {"x86_64": Subset(A, (B,)), "arm": Subset(B, ())}
    assert Subset(A, ()).path == f"summaries/{A.hex()}.gz"
    assert Subset(A, ()).delta_path(B) == f"summaries/{B.hex()}-{A.hex()}.delta"
    short = (
        gvariant.encode("(a{s(ayaaya{sv})}a{sv})", ({"x": row}, {})) for row in ((A[1:], [], {}), (A, [B[1:]], {}))
    )
    for bad in (b"", b"x", data[:-1], *short):
        with pytest.raises(FormatError):
            parse_index(bad)


def test_a_delta_of_a_summary() -> None:
    made = apply_summary_delta(b"0123456789", delta([(0, 2), (1, 3), (2, 4), (0, 1), (2, 0)], b"abcd"))
    assert made == b"01abcd5"
    assert apply_summary_delta(b"", delta([])) == b""


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"xadf",
        b"xadg" + bytes(4),
        delta([(3, 0)]),
        delta([(0, 11)]),
        delta([(1, 11)]),
        delta([(2, 5)], b"abcd"),
        b"xadf" + struct.pack("<I", 1 << 30),
    ],
)
def test_malformed_deltas_are_refused(bad: bytes) -> None:
    with pytest.raises(FormatError):
        apply_summary_delta(b"0123456789", bad)


@given(st.binary(max_size=60), st.binary(max_size=80))
def test_nothing_but_the_one_error_comes_out(old: bytes, data: bytes) -> None:
    for text in (data, b"xadf\3\0\0\0" + data):
        with contextlib.suppress(FormatError):
            apply_summary_delta(old, text)
    for parse in (parse_index, gunzip):
        with contextlib.suppress(FormatError):
            parse(data)


def test_what_a_delta_makes_is_bounded() -> None:
    with pytest.raises(TooLargeError):
        apply_summary_delta(b"x" * 100, delta([(0, 100), (2, 1)], b"y"), limit=100)
    with pytest.raises(FormatError):
        apply_summary_delta(b"", delta([(0, 0)] * ((1 << 20) + 1)))


def test_gzip_is_bounded() -> None:
    assert gunzip(gzip.compress(b"x" * 1000)) == b"x" * 1000
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        gunzip(bomb, limit=1 << 20)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    good = gzip.compress(b"x")
    for bad in (b"", b"rubbish", good[:-1], good + b"x", good + good):
        with pytest.raises(FormatError):
            gunzip(bad)


def test_which_subset_a_ref_is_in() -> None:
    assert subset_of("app/org.a.B/x86_64/stable", None) == "x86_64"
    assert subset_of("runtime/org.a.B/aarch64/1", "verified") == "verified-aarch64"
    assert subset_of("appstream2/x86_64", None) == "x86_64"
    assert subset_of("os/stable", None) is None
    assert subset_of("app/org.a.B/x86_64/stable/more", None) is None


def test_conditions() -> None:
    conditions = Conditions('"a"', "Mon, 01 Jan 2024 00:00:00 GMT")
    asked = ['If-None-Match: "a"', "If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT"]
    assert conditions.headers() == asked
    for line in (
        b"HTTP/1.1 302 Found\r\n",
        b'ETag: "redirect"\r\n',
        b"\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b'etag: W/"b"\r\n',
    ):
        conditions.take_header(line)
    assert (conditions.etag, conditions.last_modified, conditions.headers()) == ('W/"b"', "", asked)
    for line in (b'ETag: "%b"' % (b"x" * 5000), b'ETag: "a\rb"', b'ETag: "\xff"', b"rubbish"):
        conditions.take_header(line + b"\r\n")
    assert conditions.etag == 'W/"b"'


@pytest.mark.parametrize(
    ("line", "is_kept"),
    [
        ('ETag: "a"', True),
        ('ETag: W/"a,b"', True),
        ('ETag: ""', True),
        ("ETag: *", False),
        ('ETag: "a", "b"', False),
        ('ETag: "', False),
        ("ETag: a", False),
        ('ETag: w/"a"', False),
        ("Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT", True),
        ("Last-Modified: Fri, 31 Dec 9999 23:59:59 GMT", False),
        ("Last-Modified: Fri, 31 Dec 00009999 23:59:59 GMT", False),
        ("Last-Modified: Sunday, 06-Nov-94 08:49:37 GMT", False),
        ("Last-Modified: Sun, 06 Nov 1994", False),
    ],
)
def test_what_only_one_file_fits_is_asked_with(line: str, is_kept: bool) -> None:
    conditions = Conditions()
    conditions.take_header(f"{line}\r\n".encode())
    assert conditions.is_useful == is_kept


@pytest.mark.parametrize(
    ("date", "has_passed"),
    [
        ("Tue, 30 Apr 2024 23:59:59", True),
        ("Wed, 15 May 2024 00:00:00", True),
        ("Wed, 15 May 2024 08:49:37", True),
        ("Wed, 15 May 2024 08:49:38", False),
        ("Thu, 16 May 2024 00:00:00", False),
        ("Sat, 01 Jun 2024 00:00:00", False),
    ],
)
def test_a_date_has_passed_from_its_second_on(monkeypatch: pytest.MonkeyPatch, date: str, has_passed: bool) -> None:
    now = time.strptime("2024-05-15 08:49:37", "%Y-%m-%d %H:%M:%S")
    monkeypatch.setattr(time, "gmtime", lambda: now)
    conditions = Conditions()
    conditions.take_header(f"Last-Modified: {date} GMT\r\n".encode())
    assert conditions.last_modified == (f"{date} GMT" if has_passed else "")


@pytest.mark.parametrize("day", ["Sun, 06 Nov 1994", "Fri, 31 Dec 9999"])  # our clock may be behind the server's
@pytest.mark.parametrize(("sent", "is_kept"), [("08:49:36", False), ("08:49:37", False), ("08:49:38", True)])
def test_a_file_of_the_second_in_which_it_is_sent_is_not_asked_with(day: str, sent: str, is_kept: bool) -> None:
    lines = [f"Date: {day} {sent} GMT", f"Last-Modified: {day} 08:49:37 GMT", 'ETag: "a"']
    for each in permutations(lines):
        conditions = Conditions()
        for line in each:
            conditions.take_header(f"{line}\r\n".encode())
        assert conditions.is_useful == is_kept


@pytest.mark.parametrize("last", [b"rubbish", b"", b"\xff", b"x" * 5000], ids=["rubbish", "empty", "latin", "long"])
def test_the_last_date_counts_alone(last: bytes) -> None:
    conditions = Conditions()
    for line in ("Date: Sun, 06 Nov 1994 08:49:37 GMT", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT"):
        conditions.take_header(f"{line}\r\n".encode())
    conditions.take_header(b"Last-Modified: %b\r\n" % last)
    assert (conditions.last_modified, conditions.is_useful) == ("", False)


def test_what_is_kept(tmp_path: Path) -> None:
    directory = str(tmp_path)
    assert load(None, "u") is None
    keep(None, "u", Kept(b""))
    assert load(directory, "u") is None
    kept = Kept(b"summary\n\0", '"e"', "date")
    keep(directory, "u", kept)
    assert load(directory, "u") == kept
    assert load(directory, "v") is None
    keep(directory, "u", Kept(b"2"))
    assert load(directory, "u") == Kept(b"2")
    (path,) = tmp_path.iterdir()
    keep(directory, "v", Kept(b"3"))
    (other,) = {*tmp_path.iterdir()} - {path}
    path.rename(other)  # as if both had the same name
    assert load(directory, "v") is None
    other.rename(path)
    for damaged in (b"", b"{}\n", b"rubbish", path.read_bytes() + b"x", b"[]\nx", path.read_bytes()[:-1]):
        path.write_bytes(damaged)
        assert load(directory, "u") is None
    keep(f"{directory}/none", "u", kept)


def test_of_what_cannot_be_kept_nothing_is_left(tmp_path: Path) -> None:
    keep(str(tmp_path), "http://h/summary", Kept(b"x"))
    (kept,) = tmp_path.iterdir()
    kept.unlink()
    kept.mkdir()
    keep(str(tmp_path), "http://h/summary", Kept(b"x"))
    assert list(tmp_path.iterdir()) == [kept]


def test_what_is_kept_is_not_much(tmp_path: Path) -> None:
    for number in range(70):
        keep(str(tmp_path), str(number), Kept(b"x"))
        os.utime(max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns), (number, number))
    assert len(list(tmp_path.iterdir())) == 64
