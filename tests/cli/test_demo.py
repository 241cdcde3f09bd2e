"""``make demo`` keeps what the README promises, also of ``make setup``, whatever its environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

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


_PYTHON = """#!/bin/sh
# A Python that makes environments without any packages: their pip tells what it was started with.
if [ "$1" = -c ]; then
    exec {python} -c "import sys; sys.version_info = (3, {minor}, 0); $2"
fi
mkdir -p "$3/bin"
printf '#!/bin/sh\\nenv >"%s/environment"\\n' "$3" >"$3/bin/pip"
printf '#!/bin/sh\\n' >"$3/bin/python"
chmod +x "$3/bin/pip" "$3/bin/python"
"""


def _python(place: Path, minor: int) -> Path:
    place.write_text(_PYTHON.format(python=sys.executable, minor=minor))
    place.chmod(0o755)
    return place


@pytest.mark.parametrize(
    "variable", ["PYTHONPATH=/srv", "PYTHONHOME=/srv", "PIP_USER=1", "PIP_TARGET=/srv", "PIP_PREFIX=/srv"]
)
def test_packages_are_installed_where_setup_says(tmp_path: Path, variable: str) -> None:
    """And none is left out because another installation has it."""
    venv = tmp_path / "venv"
    name, _, value = variable.partition("=")
    run(
        *("make", "-C", DEMO.parents[1], "setup", f"VENV={venv}", f"PYTHON={_python(tmp_path / 'python', 11)}"),
        env={**os.environ, name: value},
    )
    environment = (venv / "environment").read_text().splitlines()
    assert variable not in environment
    assert "PIP_USER=0" in environment  # pip's own settings may say so, too


def test_a_python_that_is_too_old_leaves_no_environment_behind(tmp_path: Path) -> None:
    """A newer one, making an environment in the same place, would keep the links to the old one."""
    venv = tmp_path / "venv"
    python = _python(tmp_path / "python", 10)
    done = run("make", "-C", DEMO.parents[1], "setup", f"VENV={venv}", f"PYTHON={python}", status=2)
    assert "make setup needs Python 3.11 or later" in done.stderr
    assert not venv.exists()
