"""Locales of other encodings than UTF-8, as ASCII and Latin-1: names and texts are UTF-8 all the same."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from support.commands import CFSCTL, MKCOMPOSEFS, cfsctl, run, the_error
from support.ostree_pull import Target, extensions

__all__ = ["extensions"]

pytestmark = pytest.mark.usefixtures("extensions")

LATIN = os.fsdecode(b"\xe9")
"""What somebody whose terminal is of Latin-1 types for é."""


@pytest.fixture
def ascii_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locale of ASCII, in which Python is to keep to that."""
    for name, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("ascii_locale")
def test_names_and_texts(tmp_path: Path) -> None:
    target = Target(tmp_path / "répo")
    (tmp_path / "arbre é").mkdir()
    (tmp_path / "arbre é/é").touch()
    target.ostree("commit", "-b", "é", "-s", "süß", f"--tree=dir={tmp_path}/arbre é")
    assert (target.path / "streams/refs/ostree/é").is_symlink()
    assert target.json("log", "é")["commits"][0]["subject"] == "süß"
    assert "ostree/é" in cfsctl("--repo", target.path, "ref", "list").stdout
    assert cfsctl("--repo", target.path, "ls", "ostree/é", "/").stdout.split()[-1] == "é"
    (tmp_path / "arbre é" / LATIN).touch()
    run(MKCOMPOSEFS, tmp_path / "arbre é", tmp_path / f"{LATIN}.image")
    assert (tmp_path / f"{LATIN}.image").exists()


@pytest.mark.usefixtures("ascii_locale")
def test_what_is_not_utf8_is_told_so(tmp_path: Path) -> None:
    target = Target(tmp_path / "repo")
    (tmp_path / "tree").mkdir()
    command = ("--repo", target.path, "ostree", "commit", f"--tree=dir={tmp_path}/tree")
    for option, name in (("-b", "branch"), ("-s", "subject")):
        told = the_error(*command, option, f"x{LATIN}", status=2)
        assert told == f"cfsctl: the argument {name} is not UTF-8: 'x\\udce9' (it has to be, in whatever locale)\n"
    told = the_error("--repo", target.path, "create-image", tmp_path / "tree", f"x{LATIN}", status=5)
    assert told == "cfsctl: the name 'x\\udce9' is not UTF-8\n"
    assert target.names() == {}


@pytest.mark.usefixtures("ascii_locale")
def test_arguments_that_python_cannot_make_bytes_of_again(tmp_path: Path) -> None:
    """As where the C library decodes them to characters that Python's codec has not: EUC-JP takes UTF-8 for such."""
    decoded = "import sys; sys.orig_argv[-1] = 'g\\x9f'; from composefs.cli.start import main; main()"
    told = run(sys.executable, "-c", decoded, "--repo", tmp_path / "é", "gc", status=3).stderr
    assert f"there is no repository at {tmp_path}/é" in told


@pytest.mark.root
@pytest.mark.usefixtures("ascii_locale")
def test_where_proc_is_not_mounted() -> None:
    done = run("unshare", "--mount", "sh", "-c", f"mount -t tmpfs none /proc && exec {CFSCTL} --version")
    assert done.stdout.startswith("cfsctl ")
