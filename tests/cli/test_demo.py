"""``make demo`` keeps what the README promises."""

from __future__ import annotations

import os
from pathlib import Path

from support.commands import BIN, run

DEMO = Path(__file__).resolve().parent.parent.parent / "samples" / "demo.sh"


def test_the_demo_pulls_pulls_nothing_and_leaves_nothing(environment: Path) -> None:
    done = run(DEMO, env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    text = done.stdout
    first, second = [line for line in text.splitlines() if line.startswith("objects ")]
    assert not first.startswith("objects 0 metadata + 0 files")
    assert "0 metadata + 0 files fetched" in second
    assert "files: done" in done.stderr
    for word in ("commit  ", "verity  ", "image   ", "tagged  demo/main"):
        assert text.count(f"\n{word}") >= 2, word
    assert r"/usr/share/gr\xc3\xbc\xc3\x9fe=\\ " in text
    assert "Hello from an image" in text or "left out" in text or "Only root" in text
    assert list((environment / "tmp").iterdir()) == []
    assert [path.name for path in environment.iterdir()] == ["tmp"]


def test_the_demo_takes_cfsctl_from_the_environment_that_setup_was_told_to_make() -> None:
    for venv, bin_directory in ((".venv", DEMO.parents[1] / ".venv/bin"), ("/srv/venv", Path("/srv/venv/bin"))):
        would = run("make", "-C", DEMO.parents[1], "-n", "demo", f"VENV={venv}").stdout
        assert f'PATH="{bin_directory}:$PATH" samples/demo.sh' in would
