"""What is printed with --json is as the manifest promises: no field of which that is silent, and each that it requires.

What is always there must be required: whoever reads the schema must not look for it in vain.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from composefs.protocol import schemas
from support import oci_layout
from support.commands import cfsctl, run
from support.ostree_pull import LIBEXEC, Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree

pytestmark = pytest.mark.usefixtures("extensions")


def fields(schema: dict[str, Any]) -> set[str]:
    return {*schema.get("properties", ()), *(name for each in schema.get("anyOf", ()) for name in fields(each))}


def check(repo: Path, tmp_path: Path, extension: str, *arguments: str | Path) -> None:
    """Run a command, and hold what it prints against its manifest; ``status`` the protocol tells."""
    manifest = json.loads((LIBEXEC / f"{extension}.json").read_text())
    [schema] = [
        command["result_schema"]
        for command in manifest["commands"]
        if tuple(command["name"]) == arguments[: len(command["name"])]
    ]
    printed = json.loads(cfsctl("--repo", repo, extension, *arguments, "--json", cwd=tmp_path).stdout)
    assert set(printed) - fields(schema) - {"status"} == set(), arguments
    assert schemas.misfit(schema, printed) is None, arguments
    for name in printed.keys() - {"status"}:
        without = {key: value for key, value in printed.items() if key != name}
        assert schemas.misfit(schema, without) is not None, (arguments, name)


def test_ostree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_repo(tmp_path / "source")
    commit(source, make_tree(tmp_path / "tree"))
    run("ostree", f"--repo={source}", "static-delta", "generate", BRANCH, "--empty", "--inline", "--filename=delta",
        cwd=tmp_path)  # fmt: skip
    check(Target(tmp_path / "other").path, tmp_path, "ostree", "apply-delta", tmp_path / "delta")
    ostree = partial(check, Target(tmp_path / "repo").path, tmp_path, "ostree")
    monkeypatch.setenv("COMPOSEFS_EXT_READ", str(source))
    for arguments in (
        ("pull-local", source, BRANCH),
        ("commit", f"--tree=dir={tmp_path / 'tree'}", "--branch=made"),
        ("export", "made", tmp_path / "exported"),
        ("inspect", "made"),
        ("inspect", "made", "--metadata"),
        ("log", "made"),
        ("compute-id", "made"),
        ("images",),
        ("tag", "made", "again"),
        ("untag", "again"),
        ("fsck",),
        ("list-refs", "--path", source),
        ("remote", "add", "origin", f"file://{source}", "--no-gpg-verify"),
        ("remote", "list"),
        ("remote", "show", "origin"),
        ("remote", "refs", "origin"),
        ("pull", f"origin:{BRANCH}"),
        ("remote", "delete", "origin"),
    ):
        ostree(*arguments)


def test_oci(tmp_path: Path) -> None:
    layout = oci_layout.simple().write(tmp_path / "layout")
    oci = partial(check, Target(tmp_path / "repo").path, tmp_path, "oci")
    for arguments in (
        ("pull", f"oci:{layout}:latest", "app"),
        ("inspect", "app"),
        ("inspect", "app", "--manifest"),
        ("inspect", "app", "--config"),
        ("images",),
        ("layer", oci_layout.digest(oci_layout.tar(a=b"one" * 100))),
        ("compute-id", "app"),
        ("referrers", "app"),
        ("tag", "app", "again"),
        ("untag", "again"),
        ("fsck",),
    ):
        oci(*arguments)
