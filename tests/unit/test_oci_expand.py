"""Sparse files that an archive holds in pieces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from composefs_oci.formats.tar.sparse import Sparse
from composefs_oci.layers.expand import Expander

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_came_with_a_map_is_not_copied_for_each_piece_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    pwrite = os.pwrite

    def noted(fd: int, data: memoryview, offset: int) -> int:
        written.append(memoryview(data).obj)
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", noted)
    table = b"3\n0\n2\n4\n2\n8\n2\n".ljust(512, b"\0")
    with (tmp_path / "file").open("w+b") as file:
        expander = Expander(Sparse(12, None), file.fileno(), "file")
        expander.write(table + b"aabbcc")
        assert expander.finish() == 12
        assert file.read() == b"aa\0\0bb\0\0cc\0\0"
    assert len(written) == 3
    assert len(set(map(id, written))) == 1
