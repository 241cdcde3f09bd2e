"""What the conformance kit reads of staged files, which are as long as the extension likes."""

import tracemalloc
from pathlib import Path

import pytest

from composefs.digest import SHA512
from composefs.ext.check import staged
from composefs.ext.check.files import Files


def test_a_list_of_too_many_rows_is_left_to_the_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged, "ROWS_LOOKED_AT", 3)
    params = {"chunks_file": "chunks"}
    for text, found in {
        "1\n2\n3\n": {"chunks": [1, 2, 3]},
        "1\n2\n3\n4\n": {},
        "\n\n\n\n": {},
    }.items():
        (tmp_path / "chunks").write_text(text)
        assert staged.lists_in_files("stream.put", params, str(tmp_path)) == found
    (tmp_path / "rows").write_text("{}\n" * 3)
    assert staged.answered("objects", {"objects_into": "rows"}, {}, str(tmp_path)) == [{}] * 3
    (tmp_path / "rows").write_text("{}\n" * 4)
    assert staged.answered("objects", {"objects_into": "rows"}, {}, str(tmp_path)) == []


LINE = b"/" + b" -" * 10


@pytest.mark.parametrize("text", [(LINE + b"\n") * (1 << 14), LINE + b" x=y" * (1 << 17)], ids=["lines", "columns"])
def test_a_dump_takes_no_more_memory_than_its_size(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "dump").write_bytes(text)
    found: list[tuple[int, str]] = []
    files = Files(lambda rule, what: found.append((rule, what)), set(), lambda _feature: True, SHA512)
    files.directory = str(tmp_path)
    tracemalloc.start()
    try:
        files.serving("image.digest", {"dump": "dump"})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 * len(text)
    assert found == []
