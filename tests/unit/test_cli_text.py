"""Text from elsewhere reaches a terminal without anything that the terminal would obey."""

from __future__ import annotations

import pytest

from composefs.cli.text import counted, one_line, printable, size_text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain ünïcode 文字", "plain ünïcode 文字"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link", "link"),
        ("\x9d0;title\x9cafter", "after"),
        ("\x1bP1;2qsixel\x1b\\after", "after"),
        ("\x1b]unfinished", ""),
        ("\x1b]unfinished\nnext line", "\nnext line"),
        ("\x1bcreset", "reset"),
        ("\x1b(0charset", "charset"),
        ("\x1b", ""),
        ("\x1b\x1b[31m", ""),
        ("over\rwritten\x08\x00\x7f", "overwritten"),
        ("gpj.\u202egnp.exe\u2066", "gpj.gnp.exe"),
    ],
)
def test_printable_removes_what_a_terminal_obeys(raw: str, shown: str) -> None:
    assert printable(raw) == shown


def test_one_line_cannot_pretend_to_be_two() -> None:
    assert one_line("first\ncfsctl: all is well\r\nthird\n") == "first cfsctl: all is well  third"


def test_nothing_survives_that_begins_an_escape_sequence() -> None:
    every = "".join(map(chr, [*range(0x100), 0x202A, 0x2066]))
    left = printable(every + every[::-1])
    assert not set(left) & {chr(c) for c in [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0x202A, 0x2066]}


def test_of_one_there_are_no_several() -> None:
    assert [counted(number, "object") for number in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]


def test_sizes_are_in_the_unit_of_which_there_are_fewer_than_1024() -> None:
    sizes = (0, 1, 1023, 1024, 12939429, 1 << 50)
    assert list(map(size_text, sizes)) == ["0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "12.3 MiB", "1024.0 TiB"]
