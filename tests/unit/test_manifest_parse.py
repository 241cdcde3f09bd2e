"""Manifests: what is accepted, and where the error is said to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from composefs.errors import FormatError
from composefs.ext.manifest import ARGUMENT_KINDS, parse_manifest
from composefs.protocol import schemas
from support.strict import validate

ROOT = Path(__file__).parents[2]


def manifest(**changes: Any) -> dict[str, Any]:
    base = {
        "name": "demo",
        "summary": "Demo",
        "version": "1",
        "protocol": [1],
        "commands": [{"name": ["pull"], "summary": "Pull"}],
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


def command(**changes: Any) -> dict[str, Any]:
    return manifest(commands=[{"name": ["pull"], "summary": "Pull", **changes}])


def argument(**changes: Any) -> dict[str, Any]:
    return command(arguments=[{"name": "x", "kind": "string", **changes}])


def parse(document: Any) -> Any:
    return parse_manifest(json.dumps(document).encode(), "demo")


def test_defaults() -> None:
    parsed = parse(manifest())
    assert parsed.streams == ("demo-",)
    assert [(ref.dir, ref.encoding) for ref in parsed.refs] == [("demo", "flat")]
    assert (parsed.permissions, parsed.environment, parsed.reads, parsed.execs) == ((), (), (), ())
    [pull] = parsed.commands
    assert (pull.repository, pull.stdio, pull.permissions, pull.arguments) == ("none", (), (), ())


def test_everything() -> None:
    parsed = parse(
        manifest(
            permissions=["network", "mount"],
            streams=["a-", "b-"],
            refs=[{"dir": "a"}, {"dir": "b", "encoding": "path"}],
            commands=[
                {
                    "name": ["remote", "add"],
                    "summary": "Add",
                    "permissions": ["network"],
                    "stdio": ["in"],
                    "arguments": [
                        {"name": "base_name", "kind": "choice", "choices": ["x", "y"], "default": "x", "help": "h"},
                        {"name": "depth", "kind": "int", "default": 3, "short": "d"},
                        {"name": "tree", "kind": "path-read", "prefixes": ["dir=", "tar="]},
                        {
                            "name": "files",
                            "kind": "path-read",
                            "positional": True,
                            "repeatable": True,
                            "required": True,
                        },
                    ],
                    "examples": [{"command": "cfsctl demo remote add", "offline": True}],
                },
                {"name": ["remote", "list"], "summary": "List"},
            ],
        )
    )
    add, listing = parsed.commands
    assert (add.name, add.permissions) == (("remote", "add"), ("network",))
    assert (listing.name, listing.permissions) == (("remote", "list"), ("network", "mount"))
    assert add.arguments[0].option == "--base-name"
    assert (add.arguments[1].short, add.arguments[2].prefixes) == ("d", ("dir=", "tar="))
    assert add.examples[0].offline


def test_unknown_fields_are_ignored_but_strictly_found() -> None:
    document = command(arguments=[{"name": "x", "kind": "string", "fancy": 1}])
    assert parse(document).commands[0].arguments[0].name == "x"
    with pytest.raises(AssertionError, match="fancy"):
        validate("manifest", document)


BAD = [
    (manifest(name=...), "name is missing"),
    (manifest(name="Demo"), "name 'Demo' does not fit"),
    (manifest(name="other"), "name is 'other', but the file is called demo.json"),
    (manifest(summary=7), "summary is not a string"),
    (manifest(version=...), "version is missing"),
    (manifest(protocol=...), "protocol has none of the versions"),
    (manifest(protocol=[2]), "protocol has none of the versions"),
    (manifest(protocol=[True]), "protocol is not a list of integers"),
    (manifest(permissions="network"), "permissions is not a list of strings"),
    (manifest(commands=...), "commands is empty"),
    (manifest(commands=[]), "commands is empty"),
    (manifest(commands={}), "commands is not a list of objects"),
    (manifest(commands=[7]), "commands is not a list of objects"),
    (manifest(commands=[{"name": ["a"], "summary": "A"}] * 2), "commands holds a name twice"),
    (
        manifest(commands=[{"name": ["a"], "summary": "A"}, {"name": ["a", "b"], "summary": "B"}]),
        "commands has a both as a command and as a group",
    ),
    (manifest(permissions=["root"]), "permissions holds 'root'"),
    (manifest(environment=["A=B"]), "environment holds 'A=B'"),
    (manifest(streams=[""]), "streams holds ''"),
    (manifest(streams=["../x"]), "streams holds '../x'"),
    (manifest(streams=["a-", "a-"]), "streams holds something twice"),
    (manifest(refs=[{"dir": ".."}]), r"refs\[0\].dir '..' does not fit"),
    (manifest(refs=[{"dir": "a/b"}]), r"refs\[0\].dir"),
    (manifest(refs=[{"dir": "a", "encoding": "rot13"}]), r"refs\[0\].encoding 'rot13' is not one of flat, path"),
    (command(name=[]), r"commands\[0\].name is missing"),
    (command(name=["Pull"]), r"commands\[0\].name holds 'Pull'"),
    (command(name=["--pull"]), r"commands\[0\].name holds '--pull'"),
    (command(repository="rw"), r"commands\[0\].repository 'rw' is not one of none, read, write"),
    (command(stdio=["err"]), r"commands\[0\].stdio holds 'err'"),
    (command(permissions=["mount"]), r"commands\[0\].permissions holds 'mount', not a permission that the manifest"),
    (command(examples=[{}]), r"commands\[0\].examples\[0\].command is missing"),
    (command(examples=[{"command": "x", "files": []}]), r"examples\[0\].files is not an object"),
    (command(examples=[{"command": "x", "files": {"a": 7}}]), "files holds 'a', which is not a relative path with a t"),
    (command(examples=[{"command": "x", "files": {"a/../../b": ""}}]), "files holds 'a/../../b', which is not a rel"),
    (command(examples=[{"command": "x", "files": {"/a": ""}}]), "files holds '/a', which is not a relative path"),
    (command(arguments=[{"name": "x", "kind": "string"}] * 2), r"commands\[0\].arguments holds a name twice"),
    (
        command(
            arguments=[
                {"name": "x", "kind": "string", "positional": True, "repeatable": True},
                {"name": "y", "kind": "string", "positional": True},
            ]
        ),
        "a repeatable operand that is not the last one",
    ),
    (argument(kind="float"), r"commands\[0\].arguments\[0\].kind 'float' is not one of string, int"),
    (argument(name="base-name"), "name 'base-name' does not fit"),
    (argument(name="json"), "'json' is an option that every command has"),
    (argument(kind="choice"), "choices belongs to the kind choice, and is needed there"),
    (argument(choices=["a"]), "choices belongs to the kind choice"),
    (argument(kind="choice", choices=["a"], default="b"), "default is none of the choices"),
    (argument(kind="bool", positional=True), "bool is a flag"),
    (argument(kind="bool", repeatable=True), "bool is a flag"),
    (argument(dir="a"), "dir belongs to the kind ref"),
    (argument(kind="ref", default=""), "default is an empty name"),
    (argument(kind="ref", repeatable=True, default=["a", ""]), "default is an empty name"),
    (argument(kind="int", default="3"), "default does not fit the kind int"),
    (argument(kind="int", default=True), "default does not fit the kind int"),
    (argument(short="ab"), "short 'ab' does not fit"),
    (argument(short="-"), "short '-' does not fit"),
    (argument(short="a", positional=True), "short is for options"),
    (command(arguments=[{"name": n, "kind": "string", "short": "a"} for n in "xy"]), "holds a short name twice"),
    (argument(prefixes=["dir="]), "prefixes belongs to the kind path-read"),
    (argument(kind="path-read", prefixes=["dir"]), "prefixes holds 'dir', not a word and ="),
    (argument(repeatable=True, default="x"), "default does not fit"),
    (argument(required="yes"), "required is not true or false"),
    ([], "the manifest is not an object"),
]


@pytest.mark.parametrize(("document", "message"), BAD, ids=range(len(BAD)))
def test_errors_say_where(document: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse(document)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"name": NaN}'])
def test_what_is_not_json(data: bytes) -> None:
    with pytest.raises(FormatError, match="not JSON"):
        parse_manifest(data, "demo")


def test_schema_and_parser_know_the_same_words() -> None:
    schema = schemas.load("manifest")["properties"]["commands"]["items"]["properties"]
    assert tuple(schema["arguments"]["items"]["properties"]["kind"]["enum"]) == ARGUMENT_KINDS
    for example in schemas.load("manifest")["examples"]:
        assert parse_manifest(json.dumps(example).encode(), example["name"]).name == example["name"]


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("samples/*/*.json"), *ROOT.glob("tests/support/extensions/*.json")]),
    ids=lambda p: p.stem,
)
def test_manifests_of_this_tree_pass_strictly(path: Path) -> None:
    parse_manifest(path.read_bytes(), path.stem)
    validate("manifest", json.loads(path.read_bytes()))
