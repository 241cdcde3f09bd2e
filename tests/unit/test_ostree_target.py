"""Writing an ostree repository beside others who do the same."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from composefs_ostree.exporting.target import Target

if TYPE_CHECKING:
    from pathlib import Path


def test_runs_that_start_at_once_leave_each_other_what_they_have_staged(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    Target.make(path, "archive", None)

    def run(number: int) -> None:
        for turn in range(200):
            target = Target(path)
            target.stage("object", b"content")
            target.put(f"refs/heads/{number}", str(turn).encode())
            target.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert [(tmp_path / "out" / "refs" / "heads" / str(number)).read_text() for number in range(4)] == ["199"] * 4
    assert os.listdir(tmp_path / "out" / "tmp") == ["cache"]


def test_what_a_killed_run_has_staged_is_removed(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "out")
    Target.make(path, "archive", None)
    left = tmp_path / "out" / "tmp" / "cfsctl-export-0123456789abcdef"
    left.mkdir()
    (left / "object").write_bytes(b"content")
    target = Target(path)
    assert not left.exists()
    target.close()
