"""docs/commands.md, ``--help`` and completion say the same, as all three come from the commands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from support.commands import cfsctl, completions, run

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "commands.md").read_text()
SECTIONS = {match[1]: match[2] for match in re.finditer(r"^## cfsctl ?(.*)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE)}


def test_the_page_is_what_the_commands_say() -> None:
    run(sys.executable, DOCS / "make_commands.py", "--check")


@pytest.mark.parametrize("path", [path for path in SECTIONS if path])
def test_help_and_completion_have_the_options_of_the_page(path: str) -> None:
    options = re.findall(r"(--[a-z][a-z-]*)", "\n".join(re.findall(r"^\| `(.*?)`", SECTIONS[path], re.MULTILINE)))
    shown = cfsctl(*path.split(), "--help").stdout
    assert [option for option in options if option not in shown] == []
    offered = completions(*path.split(), "--")
    assert [option for option in options if option not in offered] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str) -> None:
    assert "_CFSCTL_COMPLETE" in cfsctl("completion", shell).stdout
