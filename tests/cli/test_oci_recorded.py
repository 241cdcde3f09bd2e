"""``cfsctl oci`` on repositories that composefs-rs 0.9.0 made: it answers as was recorded, before and after."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.commands import CFSCTL, cfsctl
from support.recorded import RECORDED, answers, unpack

pytestmark = pytest.mark.vectors


def by_name(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Theirs are in the order of the directory."""
    return sorted(images, key=lambda image: str(image["name"]))


def compare(repo: Path, command: dict[str, Any]) -> None:
    """Run a recorded command: the same status, JSON or bytes."""
    argv = command["argv"]
    done = subprocess.run([CFSCTL, "--repo", repo, *argv], capture_output=True, check=False)
    assert bool(done.returncode) == bool(command["rc"]), (argv, done.stderr)
    if command["rc"]:
        assert done.stderr.count(b"\n") == 1
        assert argv[-1].encode() in done.stderr
    elif "sha256" in command:
        assert (len(done.stdout), hashlib.sha256(done.stdout).hexdigest()) == (command["size"], command["sha256"]), argv
    elif argv[1:] == ["images"]:
        told = [[word for word in line.split() if word not in "│┆"] for line in command["stdout"].splitlines()]
        rows = [line for line in told if len(line) == 5]
        assert [line.split() for line in done.stdout.decode().splitlines()] == [rows[0], *sorted(rows[1:])]
    elif command["stdout"].startswith("{"):
        expected, found = json.loads(command["stdout"]), json.loads(done.stdout)
        if "images" in expected:
            assert by_name(found["images"]) == by_name(expected["images"])
        else:
            assert (list(found), found) == (list(expected), expected)
    else:
        assert done.stdout.decode() == command["stdout"], argv


@pytest.mark.parametrize("name", RECORDED)
def test_it_answers_as_recorded(tmp_path: Path, name: str) -> None:
    repo, told = unpack(name, tmp_path), answers(name)
    commands = [command for command in told["commands"] if command["argv"][0] == "oci"]
    assert len(commands) >= 20
    for command in commands:
        compare(repo, command)
    steps = 0
    for command in told["then"]["steps"]:
        if command["argv"][0] == "oci":
            compare(repo, command)
            steps += 1
        elif command["argv"][:2] == ["ostree", "untag"] or command["argv"] == ["gc"]:
            cfsctl("--repo", repo, *command["argv"])
    assert steps >= 2
    assert json.loads(cfsctl("--repo", repo, "oci", "fsck", "--json").stdout)["ok"]
