"""docs/commands.md, ``--help`` and completion say the same, as all three come from the commands."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from composefs.errors import KINDS, error_of_kind
from support import peers
from support.commands import BIN, cfsctl, completions, run
from support.populated import populate

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


def test_the_page_explains_the_arguments_that_help_explains() -> None:
    explained = {
        path: re.findall(r"^\| `(.*?)`", section.partition("| argument |")[2].partition("\n\n")[0], re.MULTILINE)
        for path, section in SECTIONS.items()
    }
    assert explained["oci compute-id"] == ["NAME\\|@DIGEST", "ID"]
    for path in ("oci compute-id", "ostree pull", "ostree remote add"):
        shown = cfsctl(*path.split(), "--help").stdout.partition("Arguments:\n")[2].partition("\n\n")[0]
        assert re.findall(r"^  (\S+)", shown, re.MULTILINE) == [name.replace("\\|", "|") for name in explained[path]]


@pytest.mark.parametrize("name", ["mkcomposefs", "composefs-info", "mount.composefs"])
def test_help_of_a_tool_has_what_the_page_says(name: str) -> None:
    section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(.*?)` \| (.*?) \|$", section, re.MULTILINE)
    shown = " ".join(run(BIN / name, "--help").stdout.split())
    assert len(rows) >= 4
    for spelling, text in rows:
        assert spelling in shown
        assert text in shown
    example = re.findall(r"^  (.*)$", section.partition("example")[2], re.MULTILINE)[0]
    assert example in shown


def test_the_man_page_has_every_exit_status(tmp_path: Path) -> None:
    run(sys.executable, DOCS / "make_manpages.py", tmp_path)
    section = (tmp_path / "cfsctl.1").read_text().partition(".SH EXIT STATUS\n")[2].partition(".SH ")[0]
    assert {int(status) for status in re.findall(r"^\.B (\d+)$", section, re.MULTILINE)} == {
        0,
        *(error_of_kind(kind).exit_status for kind in KINDS),
        *(128 + number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)),
    }
    # What is said there holds for every extension, and so do the options that come before the command.
    for extension in ("oci", "ostree"):
        assert (tmp_path / f"cfsctl-{extension}.1").read_text().endswith(".SH SEE ALSO\n.BR cfsctl (1)\n")


# What a shell makes of the words before the cursor, one candidate a line.
_SHELLS = {
    "bash": """source /dev/stdin
        COMP_WORDS=(cfsctl {words}) COMP_CWORD={count}
        _cfsctl_completion cfsctl
        printf '%s\\n' "${{COMPREPLY[@]}}" """,
    # zsh's own functions show a menu; here they print what they would show.
    "zsh": """compdef() {{ : }}
        _describe() {{ print -rl -- "${{(@P)3}}" }}
        compadd() {{ local name=$@[-1]; print -rl -- "${{(@P)name}}" }}
        script=$(cat)
        words=(cfsctl {words}) CURRENT=$(({count} + 1))
        eval "$script"
        _cfsctl_completion""",
    "fish": "source -; complete -C 'cfsctl {line}'",
}


@pytest.mark.parametrize("shell", _SHELLS)
def test_each_shell_completes(shell: str, tmp_path: Path) -> None:
    made = populate(tmp_path / "repo")
    script = cfsctl("completion", shell).stdout
    assert "_CFSCTL_COMPLETE" in script
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def candidates(*before: str) -> list[str]:
        line = f"--repo {made.path} {' '.join(before)} "
        words = f"{line}''"
        command = _SHELLS[shell].format(words=words, count=len(before) + 3, line=line)
        done = run(peers.require(shell), *options, "-c", command, input=script, env=environment)
        return [re.split(r"[\t:]", each)[0] for each in done.stdout.splitlines()]

    assert {"create-image", "gc", "ref"} <= set(candidates())
    assert candidates("ref") == ["list", "remove"]
    assert candidates("mount")[:2] == ["oci/team/app", "refs/os/1"]


def test_fish_keeps_commas_in_names_and_descriptions(tmp_path: Path) -> None:
    made = populate(tmp_path / "repo")
    os.symlink(f"../{made.alone}", made.path / "images/refs/one,two")
    script = cfsctl("completion", "fish").stdout
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}

    def shown(words: str) -> list[str]:
        command = f"source -; complete -C 'cfsctl --repo {made.path} {words} '"
        done = run(peers.require("fish"), "--no-config", "-c", command, input=script, env=environment)
        return done.stdout.splitlines()

    assert "cat\tWrite FILES of the image NAME, or without any the stream NAME, to standard output." in shown("")
    assert "refs/one,two" in [line.partition("\t")[0] for line in shown("mount")]
