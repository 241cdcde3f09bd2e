"""Lists in staging: whatever the elements hold, each is one line, and comes back as it was."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composefs_ext.staging import Staging, _lines


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [","],
        [",", 'a",', '","', '"', "", "\n", "é\ud800"],
        [1, None, -2, 2**63],
        [1, ",", None],
        [True, 1.5],
        [["a", 1], {"name": ",", "size": 1}],
        ["id"] * 10_000,
    ],
    ids=lambda rows: repr(rows)[:20],
)
def test_rows_come_back(tmp_path: Path, rows: list[Any]) -> None:
    staging = Staging(str(tmp_path))
    name = staging.write_rows(iter(rows))
    lines = (tmp_path / name).read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert staging.read_rows(name) == rows
    assert os.listdir(tmp_path) == []


@given(st.lists(st.text('",\\[]{}:\n a'), min_size=1) | st.lists(st.text() | st.integers() | st.none(), min_size=1))
def test_each_row_is_a_line(rows: list[Any]) -> None:
    assert [json.loads(line) for line in _lines(rows).splitlines()] == rows


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    staging = Staging(str(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(OSError, match="too large") as data:
            staging.write(bytes(4096))
        with pytest.raises(OSError, match="too large") as rows:
            staging.write_rows(["long"])
        with pytest.raises(OSError, match="too large") as later, staging.create("open") as file:
            file.write(b"12")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    named = [caught.value.filename for caught in (data, rows, later)]
    assert named == [staging.path_of(name) for name in ("f-1", "rows-2", "open")]
