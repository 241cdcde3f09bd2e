"""The answers that composefs-rs gave for ostree commits: image ids, streams byte for byte, outputs of commands."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.commands import CFSCTL, cfsctl, run
from support.ostree_modes import copy_repo
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import commit, make_repo
from support.peers import require
from support.recorded import RECORDED, answers, unpack
from support.server import serve
from support.vectors import DATA

pytestmark = pytest.mark.usefixtures("extensions")

ROWS: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["ostree"]
MODES = ("bare", "bare-user", "bare-split-xattrs", "bare-user-only")


def commit_vector(path: Path, seed: int, entries: int) -> str:
    """Commit the tree of a seed into a new archive repository, as the recorded commits were; return the commit's id."""
    tree = path.with_suffix(".tree")
    run(sys.executable, DATA / "make_tree.py", str(seed), tree, str(entries))
    run(require("ostree"), "init", f"--repo={path}", "--mode=archive")
    options = ("--timestamp=@1700000000", "--owner-uid=0", "--owner-gid=0", "--subject=vector", "--parent=none")
    return run("ostree", f"--repo={path}", "commit", "--branch=vector/main", *options, tree).stdout.strip()


@pytest.mark.root
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"seed{row['seed']}")
def test_images_have_the_recorded_ids(tmp_path: Path, row: dict[str, Any]) -> None:
    source = tmp_path / "source"
    assert commit_vector(source, row["seed"], row["entries"]) == row["commit"]
    with serve(source) as server:
        for key in ("sha256-v1", "sha256-v2", "sha512-v1"):
            algorithm, _, erofs = key.partition("-v")
            recorded = {"none": row[key], "composefs-rs": row["composefs-rs"][key]}
            # One way begins with our own names of extended attributes, the other with those of composefs-rs; what is
            # pulled then has its image made again, which one format will do for.
            for command, place, first, then in (
                ("pull", server.url, "composefs-rs", "none"),
                ("pull-local", source, "none", "composefs-rs"),
            ):
                target = Target(tmp_path / f"{command}-{key}", algorithm, int(erofs))
                for compat in (first, then) if key == "sha256-v1" else (first,):
                    pulled = target.json(command, place, "vector/main", f"--compat={compat}")
                    assert (pulled["commit"], pulled["image"]) == (row["commit"], recorded[compat]), (key, command)
                made = target.ostree("compute-id", "vector/main", f"--compat={then}").stdout
                assert made == recorded[then] + "\n", (key, command)
            assert target.ostree("compute-id", row["commit"]).stdout == row[key] + "\n"


@pytest.mark.root
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"seed{row['seed']}")
def test_other_modes_give_the_recorded_ids_too(tmp_path: Path, row: dict[str, Any]) -> None:
    archive = tmp_path / "archive"
    commit_vector(archive, row["seed"], row["entries"])
    # The largest trees take turns.
    for mode in MODES if row["entries"] <= 200 else (MODES[row["seed"] % len(MODES)],):
        source = archive
        if mode == "bare-user-only":  # what it cannot keep is not in a canonical commit
            source = make_repo(tmp_path / "canonical")
            options = ("--canonical-permissions", "--no-xattrs")
            commit(source, archive.with_suffix(".tree"), *options, branch="vector/main")
        copied = copy_repo(source, tmp_path / mode, mode, "vector/main")
        pulled = Target(tmp_path / f"from-{mode}").json("pull-local", copied, "vector/main")
        if mode == "bare-user-only":
            assert pulled == Target(tmp_path / "from-canonical").json("pull-local", source, "vector/main")
        else:
            assert (pulled["commit"], pulled["image"]) == (row["commit"], row["sha256-v1"])


@pytest.mark.root
@pytest.mark.vectors
@pytest.mark.parametrize("name", RECORDED)
def test_streams_are_those_of_composefs_rs_byte_for_byte(tmp_path: Path, name: str) -> None:
    recorded = answers(name)
    algorithm, _, erofs = name.partition("-v")
    for tree in recorded["inputs"]["trees"]:
        ours = Target(tmp_path / f"ours-{tree['seed']}", algorithm, int(erofs))
        source = tmp_path / f"source-{tree['seed']}"
        assert commit_vector(source, tree["seed"], tree["entries"]) == tree["commit"]
        pulled = ours.json("pull-local", source, "vector/main", "--compat=composefs-rs")
        stream = f"ostree-commit-{tree['commit']}"
        [cat] = [entry for entry in recorded["commands"] if entry["argv"] == ["cat", stream]]
        assert hashlib.sha256(cat_bytes(ours.path, stream)).hexdigest() == cat["sha256"]
        made = next(entry["stdout"] for entry in recorded["made"] if tree["commit"] in entry["stdout"])
        assert f"image   {pulled['image']}\n" in made
        assert f"objects {pulled['metadata_fetched']} metadata + {pulled['files_fetched']} files fetched\n" in made


def cat_bytes(repo: Path, stream: str) -> bytes:
    return subprocess.run([CFSCTL, "--repo", repo, "cat", stream], check=True, capture_output=True).stdout


@pytest.mark.vectors
@pytest.mark.parametrize("name", RECORDED)
def test_commands_answer_as_recorded(tmp_path: Path, name: str) -> None:
    repo = unpack(name, tmp_path)
    (repo / "meta.json").chmod(0o444)
    checked = 0
    for entry in answers(name)["commands"]:
        argv: list[str] = entry["argv"]
        if argv[0] != "ostree" or argv[1] not in ("inspect", "compute-id", "dump", "images"):
            continue
        compat = ["--compat=composefs-rs"] if argv[1] in ("compute-id", "dump") else []
        done = cfsctl("--repo", repo, *argv, *compat, status=None)
        assert (done.returncode == 0) == (entry["rc"] == 0), argv
        if argv[1] == "images":
            facts = {tuple(line.split("│")[1].split("┆")) for line in entry["stdout"].splitlines() if "┆" in line}
            expected = {(name.strip(), commit.strip()) for name, commit in facts}
            assert {tuple(line.split()) for line in done.stdout.splitlines()} == expected
        elif entry["rc"]:
            assert "is not a known ostree ref or valid commit ID" in done.stderr
        elif "sha256" in entry:
            assert hashlib.sha256(done.stdout.encode()).hexdigest() == entry["sha256"], argv
        else:
            assert done.stdout == entry["stdout"], argv
        checked += 1
    assert checked > 10
