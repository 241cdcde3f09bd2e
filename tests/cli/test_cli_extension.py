"""Commands of extensions: built from the manifest, checked before anything runs, run with what was checked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl, completions

PROGRAM = f"""#!{sys.executable}
import os
from composefs_ext import main

def handler(request, core):
    core.log("info", "for people\\x1b[2J")
    core.output("hello from echo\\n")
    repository = core.repository
    return {{
        "command": list(request.command),
        "arguments": dict(request.arguments),
        "repository": None if repository is None else repository.writable,
        "directory": request.directory,
        "status": 1 if "fail" in request.command else 0,
    }}

main(handler)
"""

ARGUMENTS: list[dict[str, Any]] = [
    {"name": "place", "kind": "url", "positional": True, "required": True, "help": "Where."},
    {"name": "names", "kind": "string", "positional": True, "repeatable": True},
    {"name": "base_name", "kind": "string", "help": "What is there."},
    {"name": "depth", "kind": "int", "default": 3, "help": "How deep."},
    {"name": "force", "kind": "bool", "help": "Whatever happens."},
    {"name": "check", "kind": "bool", "default": True, "help": "Check."},
    {"name": "mode", "kind": "choice", "choices": ["fast", "safe"], "default": "safe", "help": "How."},
    {"name": "key", "kind": "secret-file", "help": "A key."},
    {"name": "into", "kind": "path-write", "help": "Where to."},
    {"name": "source", "kind": "path-read", "repeatable": True, "help": "From."},
    {"name": "expect", "kind": "digest", "help": "What it should be."},
    {"name": "tree", "kind": "path-read", "prefixes": ["dir=", "tar="], "short": "t", "help": "What is in it."},
]

MANIFEST: dict[str, Any] = {
    "name": "echo",
    "summary": "Say what was asked.",
    "version": "1.2",
    "protocol": [1],
    "package": "composefs-echo",
    "commands": [
        {
            "name": ["get"],
            "summary": "Get things.",
            "description": "At length.",
            "arguments": ARGUMENTS,
            "repository": "none",
            "examples": [{"command": "cfsctl echo get http://x", "description": "Just so."}],
        },
        {"name": ["remote", "add"], "summary": "Add one.", "arguments": [], "repository": "none"},
        {"name": ["remote", "fail"], "summary": "Fail.", "arguments": [], "repository": "none"},
        {"name": ["look"], "summary": "Look.", "arguments": [], "repository": "read"},
        {"name": ["change"], "summary": "Change.", "arguments": [], "repository": "write"},
    ],
}


@pytest.fixture(autouse=True)
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the extension echo where only this test looks; return the directory."""
    directory = tmp_path / "ext"
    directory.mkdir()
    (directory / "echo").write_text(PROGRAM)
    (directory / "echo").chmod(0o755)
    (directory / "echo.json").write_text(json.dumps(MANIFEST))
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(directory))
    monkeypatch.chdir(tmp_path)
    return directory


def answer(*arguments: str, **options: Any) -> dict[str, Any]:
    return dict(json.loads(cfsctl("echo", *arguments, "--json", **options).stdout))


@pytest.mark.parametrize("width", range(80, 93, 4))
def test_no_line_of_help_ends_within_an_option(echo: Path, width: int) -> None:
    manifest = json.loads(json.dumps(MANIFEST))
    name = "--one-two-three-four-five"
    manifest["commands"][0]["description"] = manifest["commands"][0]["arguments"][0]["help"] = f"{name} " * 20
    (echo / "echo.json").write_text(json.dumps(manifest))
    words = cfsctl("echo", "get", "--help", env={**os.environ, "COLUMNS": str(width)}).stdout.split()
    assert words.count(name) == 40


def test_a_list_of_commands_is_not_cut_off(echo: Path) -> None:
    names = ["add", "delete", "gpg-import", "list", "refs", "rename", "show", "verify"]
    each = {"summary": "Do it.", "arguments": [], "repository": "none"}
    manifest = {**MANIFEST, "commands": [{"name": ["remote", name], **each} for name in names]}
    (echo / "echo.json").write_text(json.dumps(manifest))
    assert f"echo remote commands: {', '.join(names)}." in " ".join(cfsctl("echo", "--help").stdout.split())


def test_help_comes_from_the_manifest(echo: Path) -> None:
    (echo / "echo").write_text("#!/bin/sh\nexit 99\n")
    assert "Say what was asked." in cfsctl("--help").stdout
    group = cfsctl("echo", "--help").stdout
    assert "Get things." in group
    assert "echo remote commands: add, fail." in group
    text = cfsctl("echo", "get", "--help").stdout
    assert text.startswith("Usage: cfsctl echo get [OPTIONS] PLACE [NAMES]...\n")
    for part in (
        "At length.",
        "Where.",
        "--base-name",
        "[default: 3]",
        "[fast|safe]",
        "--no-check",
        "$ cfsctl echo get http://x",
    ):
        assert part in text


def test_arguments_arrive_typed_and_paths_absolute(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    got = answer(
        "get", "http://host/a", "one", "two", "--base-name", "b", "--depth", "-7", "--force", "--no-check",
        "--mode", "fast", "--key", "secret", "--into", "new/file", "--source", ".", "--source", "secret",
        "--expect", "ab" * 32, "-t", "tar=secret",
    )  # fmt: skip
    assert got["command"] == ["get"]
    assert got["arguments"] == {
        "place": "http://host/a",
        "names": ["one", "two"],
        "base_name": "b",
        "depth": -7,
        "force": True,
        "check": False,
        "mode": "fast",
        "key": str(tmp_path / "secret"),
        "into": str(tmp_path / "new/file"),
        "source": [str(tmp_path), str(tmp_path / "secret")],
        "expect": "ab" * 32,
        "tree": f"tar={tmp_path / 'secret'}",
    }


def test_paths_lead_where_the_kernel_goes(tmp_path: Path) -> None:
    """From a symlink to a directory .. leads to what is above that."""
    (tmp_path / "elsewhere/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/below")
    (tmp_path / "elsewhere/file").touch()
    got = answer(
        "get", "http://host/a", "--into", "link/../new", "--source", f"{tmp_path}/./link/..//file", "-t", "dir=link/..",
        "--source", "link/.",
    )  # fmt: skip
    elsewhere = str(tmp_path / "elsewhere")
    assert got["arguments"]["into"] == f"{elsewhere}/new"
    assert got["arguments"]["source"] == [f"{elsewhere}/file", str(tmp_path / "link")]
    assert got["arguments"]["tree"] == f"dir={elsewhere}"
    cfsctl("init", "--insecure", "link/../repo")
    assert (tmp_path / "elsewhere/repo/meta.json").exists()
    cfsctl("--repo", "link/../repo", "echo", "look")
    cfsctl("echo", "look", env={**os.environ, "CFSCTL_REPO": "link/../repo"})


def test_a_path_behind_a_word_needs_the_word_and_exists_and_is_completed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    assert "is none of dir=PATH, tar=PATH" in cfsctl("echo", "get", "x:y", "--tree", "secret", status=2).stderr
    assert "does not exist" in cfsctl("echo", "get", "x:y", "--tree", "dir=absent", status=3).stderr
    assert completions("echo", "get", "x:y", "--tree", "d") == ["dir="]


def test_what_is_not_given_is_left_out_or_has_its_default() -> None:
    assert answer("get", "x:y")["arguments"] == {
        "place": "x:y",
        "depth": 3,
        "force": False,
        "check": True,
        "mode": "safe",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["get", "no-scheme"],
        ["get", "http://x/\nHost: y"],
        ["get", "x:y", "--depth", "many"],
        ["get", "x:y", "--depth", "9007199254740992"],
        ["get", "x:y", "--mode", "slow"],
        ["get", "x:y", "--key", "."],
        ["get", "x:y", "--expect", "XYZ"],
        ["get", "x:y", "--unknown"],
        ["get", "x:y", "not-utf-8-\udcff"],
        ["got"],
        ["remote"],
    ],
)
def test_bad_arguments_are_refused_before_anything_runs(echo: Path, arguments: list[str]) -> None:
    refused_before_anything_runs(echo, arguments, 2)


@pytest.mark.parametrize("option", ["--key", "--source"])
def test_a_file_that_is_not_there_is_told_before_anything_runs(echo: Path, option: str) -> None:
    refused_before_anything_runs(echo, ["get", "x:y", option, "missing"], 3)


@pytest.mark.parametrize("path", ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"])
def test_a_file_that_is_open_is_given_by_its_name_and_a_pipe_refused(echo: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("s")
    with (tmp_path / "secret").open() as file:
        got = answer("get", "x:y", "--source", path, "-t", f"tar={path}", stdin=file)
    assert got["arguments"]["source"] == [str(tmp_path / "secret")]
    assert got["arguments"]["tree"] == f"tar={tmp_path / 'secret'}"
    for arguments in (["--source", path], ["--key", path], ["-t", f"tar={path}"]):
        refused = refused_before_anything_runs(echo, ["get", "x:y", *arguments], 2, input="s")
        assert f"{path} is no file that the extension could read (write it to one, and give that)" in refused


def test_a_pipe_behind_a_word_keeps_nothing_from_running() -> None:
    assert answer("get", "archive:/dev/stdin", input="s")["arguments"]["place"] == "archive:/dev/stdin"


def refused_before_anything_runs(echo: Path, arguments: list[str], status: int, **options: Any) -> str:
    (echo / "echo").write_text("#!/bin/sh\ntouch ran\n")
    done = cfsctl("echo", *arguments, status=status, **options)
    assert done.stderr.startswith("cfsctl: ")
    assert done.stderr.count("\n") == 1
    assert not list(echo.parent.rglob("ran"))
    return done.stderr


def test_completion_knows_the_manifest() -> None:
    assert completions("ec") == ["echo"]
    assert completions("echo", "rem") == ["remote"]
    assert completions("echo", "remote", "") == ["add", "fail"]
    assert completions("echo", "get", "--ba") == ["--base-name"]
    assert completions("echo", "get", "--mode", "") == ["fast", "safe"]


def test_output_and_messages() -> None:
    done = cfsctl("echo", "remote", "add")
    assert (done.stdout, done.stderr) == ("hello from echo\n", "")
    done = cfsctl("-v", "echo", "remote", "add")
    assert "for people" in done.stderr
    assert "\x1b" not in done.stderr


def test_the_status_of_the_result_counts_unless_json() -> None:
    assert cfsctl("echo", "remote", "fail", status=1).stdout == "hello from echo\n"
    assert answer("remote", "fail")["status"] == 1


def test_the_repository_is_opened_as_the_manifest_asks(tmp_path: Path) -> None:
    cfsctl("init", "--insecure", "repo")
    for command, writable in (("look", False), ("change", True)):
        done = cfsctl("--repo", "repo", "echo", command, "--json")
        assert json.loads(done.stdout)["repository"] is writable
        cfsctl("--repo", "none", "echo", command, status=3)
        assert "--no-repo" in cfsctl("--no-repo", "echo", command, status=2).stderr
    assert answer("remote", "add")["repository"] is None


def test_what_the_core_refuses_is_told_with_the_call_to_who_debugs(echo: Path) -> None:
    (echo / "echo").write_text(
        PROGRAM.replace('core.output("hello from echo\\n")', 'core.ref_get("echo/none").result()')
    )
    cfsctl("init", "--insecure", "repo")
    [error] = cfsctl("--repo", "repo", "-v", "echo", "look", status=3).stderr.splitlines()[1:]
    message = error.removeprefix("cfsctl: ").partition(" (")[0]
    assert (
        f"debug: echo: ref.get: {message}"
        in cfsctl("--repo", "repo", "-vv", "echo", "look", status=3).stderr.splitlines()
    )


def test_trace_shows_the_conversation_with_secrets_redacted() -> None:
    trace = cfsctl("--trace", "echo", "get", "http://user:hunter2@host/").stderr
    assert any(line.startswith("-> ") and '"initialize"' in line for line in trace.splitlines())
    assert any(line.startswith("<- ") for line in trace.splitlines())
    assert "host" in trace
    assert "hunter2" not in trace


def test_built_in_commands_win(echo: Path) -> None:
    for name in ("echo", "echo.json"):
        (echo / name.replace("echo", "images")).write_text((echo / name).read_text().replace('"echo"', '"images"'))
    (echo / "images").chmod(0o755)
    cfsctl("init", "--insecure", "repo")
    assert cfsctl("--repo", "repo", "images").stdout == "No images found\n"


def test_only_extensions_of_this_project_name_their_package() -> None:
    assert "'echo'" in cfsctl("ech", status=2).stderr
    done = cfsctl("tar", "pull", "x", status=2)
    assert done.stderr.count("\n") == 1
    assert "no such command 'tar'" in done.stderr
    assert "composefs-tar" not in done.stderr, "anybody may have registered that"


def test_a_rejected_extension_says_why(echo: Path) -> None:
    (echo / "echo.json").write_text('{"name": "echo"}')
    done = cfsctl("echo", "get", status=10)
    assert "summary" in done.stderr or "protocol" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ext_list_and_show(echo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    second = tmp_path / "second"
    second.mkdir()
    for name in ("echo", "echo.json"):
        (second / name).write_text((echo / name).read_text())
        (second / name).chmod(0o755)
    # One that cannot be reached by its name, as that is a command.
    manifest = json.loads((echo / "echo.json").read_text()) | {
        "name": "mount",
        "streams": ["m-"],
        "refs": [{"dir": "m"}],
    }
    (second / "mount.json").write_text(json.dumps(manifest))
    (second / "mount").write_text((echo / "echo").read_text())
    (second / "mount").chmod(0o755)
    (echo / "lonely.json").write_text("{}")
    (second / "half").write_text("#!/bin/sh\n")
    (second / "half").chmod(0o755)
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", f"{echo}:{second}:{echo}/echo")
    listed = cfsctl("ext", "list", "--json")
    assert listed.stderr == f"warning: COMPOSEFS_EXT_PATH names {echo}/echo, which is no directory\n"
    rows = json.loads(listed.stdout)["extensions"]
    states = {(row["name"], Path(row["executable"]).parent.name): row for row in rows}
    assert states["echo", "ext"]["state"] == "active"
    assert states["echo", "ext"]["version"] == "1.2"
    assert states["echo", "second"]["state"] == "shadowed"
    assert str(echo / "echo") in states["echo", "second"]["reason"]
    assert states["lonely", "ext"]["state"] == "rejected"
    assert states["half", "second"]["reason"] == "its manifest half.json is not beside it"
    assert (states["mount", "second"]["state"], states["mount", "second"]["reason"]) == (
        "shadowed",
        "cfsctl has a command mount of its own",
    )
    text = cfsctl("ext", "list").stdout
    assert text.splitlines()[0].split() == ["NAME", "STATE", "VERSION", "EXECUTABLE", "REASON"]
    assert "shadowed" in text
    shown = cfsctl("ext", "show", "echo").stdout
    assert "composefs-echo" in shown
    assert "remote add" in shown
    manifest = json.loads(cfsctl("ext", "show", "echo", "--json").stdout)["manifest"]
    assert manifest["version"] == "1.2"
    assert manifest["refs"] == [{"dir": "echo", "encoding": "flat"}], "defaults are filled in"
    assert [command["name"] for command in manifest["commands"]][1] == ["remote", "add"]
    assert "lonely" in cfsctl("ext", "show", "lonely", status=10).stderr
    assert cfsctl("ext", "show", "none", status=3).stderr.count("\n") == 1


def test_the_user_s_directory_is_told_where_it_has_a_name(tmp_path: Path) -> None:
    place = tmp_path / "löcal"
    place.mkdir()
    assert json.loads(cfsctl("echo", "remote", "add", "--json", cwd=place).stdout)["directory"] == str(place)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    odd.mkdir()
    assert json.loads(cfsctl("echo", "remote", "add", "--json", cwd=odd).stdout)["directory"] is None
