"""Text for people: columns are aligned, and a stranger's name stays within its line."""

from __future__ import annotations

from composefs_ext.text import counted, human_bytes, printable, table


def test_columns_are_aligned_and_lines_end_with_words() -> None:
    assert table(("NAME", "SIZE"), [("a", 1), ("longer", 22), ("", "")]) == "NAME    SIZE\na       1\nlonger  22\n\n"


def test_nothing_in_a_cell_ends_the_line() -> None:
    assert table(("A", "B"), [("x\ny", "\x1b[2J"), ("\ud800", "\x9b1m")]) == "A    B\nx�y  �[2J\n�    �1m\n"
    assert printable("schön, 雪 \N{GREEK SMALL LETTER ALPHA}") == "schön, 雪 α"


def test_sizes_are_in_the_largest_unit_of_which_there_is_one() -> None:
    assert [human_bytes(size) for size in (0, 1023, 1024, 12939429, 1 << 50)] == [
        "0 B", "1023 B", "1.00 KiB", "12.34 MiB", "1024.00 TiB",
    ]  # fmt: skip


def test_of_one_there_are_no_several() -> None:
    assert [counted(number, "file") for number in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
