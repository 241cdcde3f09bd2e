"""What a process gets from whoever starts it: limits, descriptors, rights."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from composefs.linux.prctl import drop_capabilities
from support.commands import cfsctl

_DAC_OVERRIDE = 1


def test_more_files_than_a_user_may_have_on_their_way_to_other_processes(tmp_path: Path) -> None:
    """The limit holds for all processes of a user together, who may run many commands at a time."""

    def be_limited() -> None:
        drop_capabilities(frozenset({_DAC_OVERRIDE}))  # root is spared this limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))

    (tmp_path / "tree").mkdir()
    for number in range(200):
        with (tmp_path / f"tree/{number}").open("wb") as file:
            os.truncate(file.fileno(), 1 << 20)
    command = ("--no-repo", "compute-id", "--no-propagate-usr-to-root", tmp_path / "tree")
    assert cfsctl(*command, preexec_fn=be_limited).stdout == cfsctl(*command).stdout
