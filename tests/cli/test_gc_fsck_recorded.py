"""gc and fsck on the repositories that composefs-rs made, before and after each step that it was recorded to take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl
from support.recorded import RECORDED, answers, unpack

pytestmark = pytest.mark.vectors


def links(repo: Path, top: str) -> dict[str, str]:
    return {str(path.relative_to(repo)): str(path.readlink()) for path in (repo / top).rglob("*") if path.is_symlink()}


def ours(argv: list[str]) -> list[str]:
    """The same step without the extensions."""
    match argv:
        case [("oci" | "ostree") as kind, "untag", name]:
            return ["ref", "remove", f"{kind}/{name}"]
    return argv


@pytest.mark.parametrize("name", RECORDED)
def test_fsck(name: str, tmp_path: Path) -> None:
    repo, told = unpack(name, tmp_path), answers(name)
    rows = [row for row in told["commands"] if row["argv"][0] == "fsck"]
    assert len(rows) >= 3
    for row in rows:
        assert cfsctl("--repo", repo, "--insecure", *row["argv"], status=row["rc"]).stdout == row["stdout"]


@pytest.mark.parametrize("name", RECORDED)
def test_steps(name: str, tmp_path: Path) -> None:
    repo, then = unpack(name, tmp_path), answers(name)["then"]
    collected = 0
    for step in then["steps"]:
        argv: list[Any] = ours(step["argv"])
        if argv[0] in ("oci", "ostree"):
            continue  # what an extension lists is its own test's
        done = cfsctl("--repo", repo, "--insecure", *argv, status=step["rc"])
        if argv[0] != "ref":
            assert done.stdout == step["stdout"]
        collected += argv[0] == "gc"
    assert collected >= 5
    for top in ("streams", "images"):
        assert links(repo, top) == {path: link for path, link in then[top].items() if link != "/"}
    assert {path.parent.name + path.name for path in repo.glob("objects/*/*")} == set(then["objects"])
    assert json.loads(cfsctl("--repo", repo, "fsck", "--json").stdout)["ok"]
