"""What core/README.md shows to who has installed the core alone runs as it stands."""

from __future__ import annotations

import os
import re
from pathlib import Path

from support.commands import BIN, run

README = (Path(__file__).parents[2] / "core/README.md").read_text()


def test_the_commands_run(tmp_path: Path) -> None:
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    (tmp_path / "rootfs/usr").mkdir()
    (tmp_path / "rootfs/etc/hostname").write_text("here\n")
    lines = re.findall(r"^    (cfsctl .*)", README, re.MULTILINE)
    [mount] = [line for line in lines if " mount " in line]  # whether it may be done is the machine's affair
    script = "\n".join(line for line in lines if line != mount)
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    said = run("sh", "-ec", script, cwd=tmp_path, env=environment).stdout
    assert " hostname\n" in said
    assert said.endswith("status: ok\n")
