"""The commands and options that ostree's users know: each is here, or the page says what there is instead."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from support.commands import cfsctl, run
from support.ostree_pull import LIBEXEC, extensions  # noqa: F401  a fixture
from support.peers import require

PAGE = Path(__file__).resolve().parents[2] / "docs/formats/ostree.md"
OF_HELP = {"--help", "--version"}

pytestmark = pytest.mark.usefixtures("extensions")


def ours(command: str) -> set[str]:
    manifest = json.loads((LIBEXEC / "ostree.json").read_text())
    (arguments,) = [each["arguments"] for each in manifest["commands"] if each["name"] == command.split()]
    return {f"--{each['name'].replace('_', '-')}" for each in arguments}


@pytest.mark.parametrize(
    "command",
    [
        *("pull", "pull-local", "commit", "sign"),
        *("remote add", "remote gpg-import", "remote delete", "remote list", "remote refs"),
    ],
)
def test_every_option_of_ostree_is_here_or_explained(command: str) -> None:
    help_text = run(require("ostree"), *command.split(), "--help").stdout
    theirs = set(re.findall(r"^  (?:-., )?(--[a-z-]+)", help_text, re.MULTILINE))
    assert "--repo" in theirs
    explained = set(re.findall(r"--[a-z-]+", PAGE.read_text()))
    assert theirs - OF_HELP - ours(command) - explained == set()


@pytest.mark.parametrize("group", ["", "remote"])
def test_every_command_of_ostree_is_here_or_explained(group: str) -> None:
    help_text = run(require("ostree"), *group.split(), "--help").stdout.partition("Commands:\n")[2].partition("\n\n")[0]
    theirs = set(re.findall(r"^  ([a-z-]+)  ", help_text, re.MULTILINE))
    assert theirs >= {"add", "refs"} if group else {"commit", "pull"}
    manifest = json.loads((LIBEXEC / "ostree.json").read_text())
    here = {each["name"][-1] for each in manifest["commands"]} | {"remote"}
    explained = {word for code in re.findall(r"`([^`]+)`", PAGE.read_text()) for word in code.split()}
    assert theirs - here - explained == set()


@pytest.mark.parametrize(
    ("line", "guess"),
    [
        ("pull o --http-header=a=b", "Did you mean '--http-header-file'?"),
        ("pull o --n-network-retries=1", "Did you mean '--network-retries'?"),
        ("pull o --disable-sign-verify", "'--no-sign-verify'"),
        ("pull o --subpth=/a", "Did you mean '--subpath'?"),
        ("pull o --fsync=no", None),
        ("pull o --disable-fsync", None),
        ("pull o --mirror", None),
    ],
)
def test_what_is_guessed_for_others_is_like_them(line: str, guess: str | None) -> None:
    told = cfsctl("ostree", *line.split(), status=2).stderr
    assert "no such option" in told
    assert "(see 'cfsctl ostree pull --help')" in told
    if guess is None:
        assert "id you mean" not in told
    else:
        assert guess in told


def test_the_help_of_pull_tells_what_options_are_called_here() -> None:
    words = " ".join(cfsctl("ostree", "pull", "--help").stdout.split())
    for option in ("--disable-static-deltas", "--http-header ", "--untrusted", "--mirror", "--localcache-repo"):
        assert option in words
