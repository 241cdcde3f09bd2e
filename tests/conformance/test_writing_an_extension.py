"""docs/writing-an-extension.md shows a manifest and a dump that work, and every kind of argument as it arrives."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from composefs.ext.manifest import ARGUMENT_KINDS, parse_manifest
from support.commands import cfsctl
from support.strict import validate

PAGE = (Path(__file__).parents[2] / "docs/writing-an-extension.md").read_text()

SHOWS_ITS_ARGUMENTS = """#!/bin/sh
read -r initialize
echo '{"jsonrpc":"2.0","id":1,"result":{"version":1}}'
read -r run
echo "$run" >&2
echo '{"jsonrpc":"2.0","id":2,"result":{}}'
cat >/dev/null
"""


def test_the_manifest_is_one() -> None:
    [block] = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    validate("manifest", json.loads(block))
    assert parse_manifest(block.encode(), "hello").commands[0].name == ("put",)


def test_the_dump_is_one(tmp_path: Path) -> None:
    [dump] = re.findall(r"\n\n((?:    /.*\n)+)\nThe columns are ", PAGE)
    whole = re.sub("^    ", "", dump, flags=re.MULTILINE).replace("76eecc…", "76eecc" + "0" * 56)
    (tmp_path / "dump").write_text(whole)
    said = cfsctl("--no-repo", "--hash", "sha256", "compute-id", "--from-dump", tmp_path / "dump").stdout
    assert re.fullmatch("[0-9a-f]{64}\n", said)


def test_the_calls_and_the_error_are_valid() -> None:
    [answer] = re.findall(r'^    (\{.*"error":.*)', PAGE[PAGE.index("## Errors") :], re.MULTILINE)
    validate("error", json.loads(answer)["error"])
    lines = re.findall(r"^    < (\{.*(?:\n {20,}.*)*)", PAGE, re.MULTILINE)
    whole = [re.sub(r'"([0-9a-f]+)…"', lambda match: f'"{match[1]:0<64}"', line) for line in lines]
    calls = [message for line in whole if "method" in (message := json.loads(line.replace('"…":', '"method":')))]
    assert {call["method"] for call in calls} == {"object.put", "stream.put", "image.put", "publish"}
    for call in calls:
        validate(call["method"], {"params": call["params"]})


def test_every_kind_of_argument_arrives_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE[PAGE.index("### Kinds of arguments") : PAGE.index("## Try it from where it is")]
    shown = re.findall(r"`(.*?)`", " ".join(re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)))
    assert sorted(shown) == sorted(ARGUMENT_KINDS)

    arguments: list[dict[str, object]] = [{"name": kind.replace("-", "_"), "kind": kind} for kind in ARGUMENT_KINDS]
    next(each for each in arguments if each["kind"] == "choice")["choices"] = ["a"]
    arguments.append({"name": "many", "kind": "string", "repeatable": True})
    command = {"name": ["show"], "summary": "Show.", "arguments": arguments}
    manifest = {"name": "hello", "summary": "Hello.", "version": "1", "protocol": [1], "commands": [command]}
    (tmp_path / "hello.json").write_text(json.dumps(manifest))
    (tmp_path / "hello").write_text(SHOWS_ITS_ARGUMENTS)
    (tmp_path / "hello").chmod(0o755)
    (tmp_path / "secret").write_text("hush")
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def arrived(*words: str) -> object:
        return json.loads(cfsctl("hello", "show", *words).stderr)["params"]["arguments"]

    assert arrived() == {"bool": False}
    assert arrived("--string=", "--int=-3", "--bool", "--many=a", "--many=b") == {
        "string": "",
        "int": -3,
        "bool": True,
        "many": ["a", "b"],
    }
    assert arrived("--url=x-y:z", "--digest=00ff", "--ref=new", "--image=hello/new", "--choice=a") == {
        "url": "x-y:z",
        "digest": "00ff",
        "ref": "new",
        "image": "hello/new",
        "choice": "a",
        "bool": False,
    }
    assert arrived("--digest=md5:00", "--path-read=.", "--path-write=new", "--secret-file=secret") == {
        "digest": "md5:00",
        "path_read": str(tmp_path),
        "path_write": f"{tmp_path}/new",
        "secret_file": f"{tmp_path}/secret",
        "bool": False,
    }
    for wrong in ("--int=9007199254740992", "--url=a b", "--url=word", "--digest=0", "--digest=FF", "--choice=b"):
        assert "invalid value for" in cfsctl("hello", "show", wrong, status=2).stderr
    for missing in ("--path-read=new", "--secret-file=new"):
        assert "new does not exist" in cfsctl("hello", "show", missing, status=3).stderr


def test_the_executable_of_a_python_package_starts_its_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = PAGE[PAGE.index("## Install and package it") :]
    [settings] = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    [launcher] = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    settings = tomllib.loads(settings)
    data = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    [script] = settings["project"]["scripts"]
    # The script's interpreter is a link to one outside of all that the extension would be given otherwise.
    for directory in ("prefix/bin", "prefix/libexec/composefs/ext", "elsewhere/bin"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "elsewhere/bin/own").symlink_to("/bin/sh")
    (tmp_path / "elsewhere/greeting").write_text("good morning\n")
    shown = SHOWS_ITS_ARGUMENTS.replace("/bin/sh", f"{tmp_path}/elsewhere/bin/own").replace(
        'echo "$run"', f"cat {tmp_path}/elsewhere/greeting"
    )
    manifest = {"name": "hello", "summary": "Hello.", "version": "1", "protocol": [1]}
    manifest["commands"] = [{"name": ["show"], "summary": "Show."}]
    sources = {"hello": launcher, "hello.json": json.dumps(manifest)}
    for name, place in data.items():
        (tmp_path / "prefix" / place).write_text(sources[name])
        (tmp_path / "prefix" / place).chmod(0o755)
    (tmp_path / "prefix/bin" / script).write_text(shown)
    (tmp_path / "prefix/bin" / script).chmod(0o755)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(tmp_path / "prefix/libexec/composefs/ext"))
    assert cfsctl("hello", "show").stderr == "good morning\n"
