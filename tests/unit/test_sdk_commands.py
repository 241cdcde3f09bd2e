"""Tables of commands: what a manifest offers is in the extension's table, and leads to a function."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from composefs_ext.commands import dispatch
from composefs_ext.errors import UsageError
from composefs_ext.testing import MemoryCore

LIBEXEC = Path(__file__).resolve().parents[2] / "libexec"


def words_of(request: object, _core: object) -> dict[str, object]:
    """A command, for the tables here."""
    return {"words": list(request.command)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["oci", "ostree"])
def test_the_manifest_and_the_table_have_the_same_commands(name: str) -> None:
    commands = import_module(f"composefs_{name}.main").COMMANDS
    manifest = json.loads((LIBEXEC / f"{name}.json").read_text())
    assert sorted(commands) == sorted(" ".join(command["name"]) for command in manifest["commands"])
    for place in commands.values():
        module, _, function = place.partition(":")
        assert callable(getattr(import_module(module), function))
        assert function in import_module(module).__all__


@pytest.mark.parametrize("words", [["put"], ["remote", "add"]])
def test_the_function_of_the_command_runs(words: list[str], tmp_path: Path) -> None:
    handler = dispatch({" ".join(words): f"{__name__}:words_of", "other": "no.such:thing"})
    assert MemoryCore(tmp_path).run(handler, words) == {"words": words}


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no command 'remote add'"):
        MemoryCore(tmp_path).run(dispatch({"remote": "x:y"}), ["remote", "add"])
