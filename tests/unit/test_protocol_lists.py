"""Lists in files, as somebody hostile writes them: what they may cost is bounded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from composefs.errors import InputOutputError, TooLargeError, UsageError
from composefs.protocol.limits import Limits
from composefs.protocol.lists import Lists, check_objects
from composefs.protocol.staged import READ_SIZE, StagedFiles


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[StagedFiles]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield StagedFiles(fd)
    os.close(fd)


def test_a_file_that_grows_while_it_is_read_is_not_followed(staged: StagedFiles, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"x" * READ_SIZE)
    pieces = staged.pieces("list", 2 * READ_SIZE)
    assert len(next(pieces)) == READ_SIZE
    with (tmp_path / "list").open("ab") as file:
        file.write(b"x" * (READ_SIZE + 1))
    assert len(next(pieces)) == READ_SIZE
    with pytest.raises(TooLargeError, match=f"staged file list has more than {2 * READ_SIZE} bytes"):
        next(pieces)


def test_a_line_that_is_too_long_is_not_kept(staged: StagedFiles, tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b'"a"\n"b"\n"' + b"c" * (2 * READ_SIZE) + b'"\n')
    with pytest.raises(TooLargeError, match="list, line 3: longer than 100 bytes"):
        Lists(staged, Limits(line=100)).take({"n_file": "list"}, "n", check_objects("n", strings=True))


def test_the_most_rows_in_a_message(staged: StagedFiles) -> None:
    lists = Lists(staged, Limits(rows=2))
    assert lists.take({"n": ["a", "b"]}, "n", check_objects("n", strings=True)) == ["a", "b"]
    with pytest.raises(TooLargeError, match="n has 3 rows, more than 2"):
        lists.take({"n": ["a", "b", "c"]}, "n", check_objects("n", strings=True))


def test_the_most_rows(staged: StagedFiles, tmp_path: Path) -> None:
    (tmp_path / "list").write_text('"a"\n"b"\n')
    found = Lists(staged, Limits(file_rows=2)).take({"n_file": "list"}, "n", check_objects("n", strings=True))
    assert found == ["a", "b"]
    with pytest.raises(TooLargeError, match="staged file list has more than 1 rows"):
        Lists(staged, Limits(file_rows=1)).take({"n_file": "list"}, "n", check_objects("n", strings=True))


@pytest.mark.parametrize("text", ['{"x": [{}, {}], "name": "a", "y": 1}', '{"name": "a", "y": 1}'])
def test_of_rows_only_what_is_used_is_kept(staged: StagedFiles, tmp_path: Path, text: str) -> None:
    (tmp_path / "list").write_text(f"{text}\n" * 3)
    found = Lists(staged, Limits()).take({"files_file": "list"}, "files", check_objects("files", "name", "size"))
    assert found == [{"name": "a"}] * 3


def test_a_list_in_a_row_is_kept_as_wrong_but_empty() -> None:
    rows: list[Any] = [{"name": ["a", ["b"]], "size": {"c": 1}}, "text"]
    check_objects("files", "name", "size", strings=True)(rows)
    assert rows == [{"name": [], "size": {}}, "text"]
    with pytest.raises(UsageError, match="files holds something that is not an object: 'text'"):
        check_objects("files", "name", "size")(rows)


def test_a_staged_file_that_cannot_be_read_is_named() -> None:
    at = os.open("/proc/self", os.O_RDONLY)  # where mem has nothing at its beginning
    with pytest.raises(InputOutputError, match=r"^reading staged file mem: Input/output error$") as whole:
        StagedFiles(at).read("mem", 10)
    with pytest.raises(InputOutputError, match=r"^reading staged file mem: Input/output error$"):
        list(StagedFiles(at).pieces("mem", 10))
    os.close(at)
    assert "dmesg" in str(whole.value.hint)


def test_a_staged_file_that_is_longer_than_it_says() -> None:
    at = os.open("/proc/self", os.O_RDONLY)  # where status has no size
    with pytest.raises(TooLargeError, match="staged file status has more than 10 bytes"):
        StagedFiles(at).read("status", 10)
    os.close(at)
