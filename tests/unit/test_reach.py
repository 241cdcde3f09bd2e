"""What of the arguments, the manifest and the environment an extension may reach."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from composefs.errors import FormatError
from composefs.ext.commandline import CommandLine
from composefs.ext.discovery import Extension
from composefs.ext.manifest import parse_manifest
from composefs.ext.reach import Reach, reach_of

ARGUMENTS = [
    {"name": "text", "kind": "string"},
    {"name": "url", "kind": "url"},
    {"name": "input", "kind": "path-read"},
    {"name": "output", "kind": "path-write"},
]


def reach(
    tmp_path: Path,
    arguments: dict[str, str] | None = None,
    /,
    environment: dict[str, str] | None = None,
    directory: str = "/here",
    **manifest: object,
) -> Reach:
    whole = {
        "name": "some",
        "summary": "Some",
        "version": "1",
        "protocol": [1],
        "commands": [{"name": ["do"], "summary": "Do", "arguments": ARGUMENTS}],
        **manifest,
    }
    parsed = parse_manifest(json.dumps(whole).encode(), "some")
    return reach_of(
        CommandLine(Extension("some", str(tmp_path / "ext/some"), parsed), parsed.commands[0], dict(arguments or {})),
        own=("/staging",),
        objects="/repo/objects",
        environment={"PATH": "/usr/bin", "HOME": str(tmp_path / "home"), **(environment or {})},
        directory=directory,
    )


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("oci:layout", "/here/layout"),
        ("oci:layout:tag", "/here/layout"),
        ("oci:/srv/layout:tag@sha256:00", "/srv/layout"),
        ("oci-archive:a.tar:docker://x:1", "/here/a.tar"),
        ("ed25519=file:/keys/one", "/keys/one"),
        ("tls-ca-path=../ca.pem", "/here/../ca.pem"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("file://localhost/srv/repo", "/srv/repo"),
    ],
)
def test_a_path_behind_words_may_be_read(tmp_path: Path, value: str, path: str) -> None:
    assert path in reach(tmp_path, {"text": value}).readable
    assert path in reach(tmp_path, {"url": value}).readable


@pytest.mark.parametrize("value", ["/etc", "/", "..", "etc", "docker://etc/shadow", "https://host/etc", "~/secret"])
def test_a_value_alone_gives_nothing(tmp_path: Path, value: str) -> None:
    """It may be a path in an image."""
    assert reach(tmp_path, {"text": value}) == reach(tmp_path)


def test_what_is_before_a_colon_or_an_at_in_a_directory_is_not_read(tmp_path: Path) -> None:
    """As in a user's directory HOST@NAME, or the subvolume @home; what is typed with a tag is found all the same."""
    for name in ("me@host/some/img", "@home/img", "a:b/img"):
        directory = tmp_path / name
        directory.mkdir(parents=True)
        base = set(reach(tmp_path).readable)
        assert set(reach(tmp_path, {"text": f"oci:{directory}"}).readable) - base == {str(directory)}
        assert set(reach(tmp_path, {"text": f"oci:{directory}:v1"}).readable) - base == {str(directory)}
        assert set(reach(tmp_path, {"text": f"oci:{directory}/:v1"}).readable) - base == {f"{directory}/"}
        found = reach(tmp_path, {"text": "oci:./nowhere:v1"}, directory=str(directory))
        assert set(found.readable) - base == {f"{directory}/./nowhere", f"{directory}/./nowhere:v1"}
    assert reach(tmp_path, {"text": "a::b"}, directory=str(directory)).readable[-2:] == (
        f"{directory}/:b",
        "/repo/objects",
    )


def test_a_directory_is_no_program(tmp_path: Path) -> None:
    (tmp_path / "elsewhere/bin/helpers").mkdir(parents=True)
    environment = {"PATH": f"{tmp_path}/elsewhere/bin"}
    assert reach(tmp_path, environment=environment, execs=["help*"]).programs == reach(tmp_path).programs
    for name in ("../../secret", "/etc/passwd", ""):
        with pytest.raises(FormatError, match=r"execs holds .*, not a program's name"):
            reach(tmp_path, execs=[name])


def test_what_is_typed_is_read_or_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    found = reach(tmp_path, {"input": "/srv/in", "output": str(tmp_path / "there")})
    assert "/srv/in" in found.readable
    assert found.writable == ("/staging", "/dev/null", str(tmp_path / "there"))
    assert reach(tmp_path, {"output": str(tmp_path / "there/new")}).writable[-1] == str(tmp_path / "there")


def test_reads_of_the_manifest(tmp_path: Path) -> None:
    reads = ["~/.netrc", "$DIRS/x", "$UNSET/y", "/etc/some", "relative"]
    found = set(reach(tmp_path, environment={"DIRS": "/a:/b"}, reads=reads).readable)
    new = found - set(reach(tmp_path).readable)
    assert new == {str(tmp_path / "home/.netrc"), "/a", "/b/x", "/etc/some"}


def test_a_home_is_no_prefix(tmp_path: Path) -> None:
    """A program in ~/bin or ~/.local/bin does not open what else is there."""
    home = tmp_path / "home"
    for below in ("bin", ".local/bin"):
        program = home / below / "helper"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        found = reach(tmp_path, environment={"PATH": str(program.parent)}, execs=["help*"])
        assert str(program) in found.programs
        assert str(program.parent) in found.programs
        assert not {str(home), str(home / ".local")} & set(found.programs)


def test_interpreters_and_search_path(tmp_path: Path) -> None:
    """The interpreter of env(1) is found in PATH, a virtual environment leads to what it was made of."""
    for name in ("venv/bin", "base/bin", "ext", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    python = tmp_path / "venv/bin/python9"
    python.write_text("")
    python.chmod(0o755)
    (tmp_path / "venv/pyvenv.cfg").write_text(f"home = {tmp_path}/base/bin\n")
    (tmp_path / "ext/some").write_text("#!/usr/bin/env -S python9 -IS\n")
    path = f"{tmp_path}/elsewhere:{tmp_path}/venv/bin:/usr/bin"
    found = reach(tmp_path, environment={"PATH": path})
    assert {str(tmp_path / "venv"), str(tmp_path / "base"), str(tmp_path / "ext")} <= set(found.programs)
    assert found.search_path(path) == f"{tmp_path}/venv/bin:/usr/bin:{tmp_path}/elsewhere"
    assert os.path.isabs(found.readable[0])
