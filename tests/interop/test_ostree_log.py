"""``cfsctl ostree log``, held against what ``ostree log`` prints, and what it says of history that ends or will."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.commands import cfsctl
from support.ostree_making import ostree
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo

pytestmark = pytest.mark.usefixtures("extensions")

REF = "os/stable"
ODD = (
    ("--timestamp=@0", "--body=the body alone"),
    ("--timestamp=@1700000000", "--subject=two\nlines\n", "--body=\n\nspaced\n\n  out\n\n"),
    ("--timestamp=1969-12-31 23:59:58 UTC", "--subject=old", "--add-metadata=version=uint32 3"),
    ("--timestamp=@1700000002", "--add-metadata-string=version="),
    ("--timestamp=@1700000003", "--subject=ä", "--body=one line", "--add-metadata-string=version=4.2 ä"),
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with a commit of each oddity, one after the other."""
    (tmp_path / "tree").mkdir()
    repo = make_repo(tmp_path / "source")
    for number, options in enumerate(ODD):
        (tmp_path / "tree" / "file").write_text(str(number))
        ostree(repo, "commit", f"--branch={REF}", f"--tree=dir={tmp_path / 'tree'}", *options)
    return repo


def test_a_whole_history_is_printed_as_by_ostree(source: Path, target: Target) -> None:
    target.ostree("pull-local", source, REF, "--depth=-1")
    head = ostree(source, "rev-parse", REF).stdout.strip()
    for name in (REF, head, head[:9], f"{REF}^", f"{REF}^^"):
        done = target.ostree("log", name)
        assert done.stdout == ostree(source, "log", name).stdout
        assert done.stderr == ""
    assert target.ostree("log", REF).stdout.count("\ncommit ") == len(ODD) - 1


def test_history_that_was_not_pulled_ends_as_in_ostree(tmp_path: Path, source: Path, target: Target) -> None:
    theirs = make_repo(tmp_path / "theirs")
    parent = ostree(source, "rev-parse", f"{REF}^^").stdout.strip()
    for options in (("--depth=1",), ("--depth=1", "--commit-metadata-only")):
        ostree(theirs, "pull-local", "--depth=1", *options[1:], source, REF)
        target.ostree("pull-local", source, REF, *options)
        done = target.ostree("log", REF)
        assert done.stdout == ostree(theirs, "log", REF).stdout
        assert done.stdout.endswith("\n\n<< History beyond this commit not fetched >>\n")
        [line] = done.stderr.splitlines()
        assert f"{parent} is not here: it was not pulled (--depth=N), or cfsctl gc has removed it" in line


def test_json_is_a_list_that_says_what_each_commit_is(source: Path, target: Target) -> None:
    target.ostree("pull-local", source, REF, "--depth=-1")
    commits = target.json("log", REF)["commits"]
    history = [ostree(source, "rev-parse", REF + "^" * number).stdout.strip() for number in range(len(ODD))]
    assert [(row["commit"], row["parent"]) for row in commits] == list(zip(history, [*history[1:], None], strict=True))
    for row in commits:
        inspected = target.json("inspect", row["commit"])
        assert row == {key: inspected[key] for key in row.keys() & inspected.keys()} | {
            "content_checksum": row["content_checksum"],
            "kept": True,
        }
        assert f"ContentChecksum:  {row['content_checksum']}\n" in ostree(source, "show", row["commit"]).stdout


def test_commits_that_gc_will_remove_are_told_and_a_ref_keeps_them(tmp_path: Path, target: Target) -> None:
    (tmp_path / "tree").mkdir()
    made = [
        target.json("commit", f"--tree=dir={tmp_path / 'tree'}", f"--branch={REF}", f"--subject={number}")["commit"]
        for number in range(4)
    ]
    assert [row["kept"] for row in target.json("log", REF)["commits"]] == [True, False, False, False]
    [line] = target.ostree("log", REF).stderr.splitlines()
    assert f"no ref keeps 3 of these, the first {made[2]}: cfsctl gc removes them" in line
    assert "cfsctl ostree tag COMMIT NAME" in line
    target.ostree("tag", f"{REF}^", "os/before")
    target.ostree("tag", made[0], "os/first")
    assert [row["kept"] for row in target.json("log", REF)["commits"]] == [True, True, False, True]
    cfsctl("--repo", target.path, "gc")
    done = target.ostree("log", REF)
    assert [line for line in done.stdout.splitlines() if line.startswith("commit")] == [
        f"commit {made[3]}",
        f"commit {made[2]}",
    ]
    assert f"{made[1]} is not here" in done.stderr
    assert target.ostree("log", "os/first").stderr == ""


def test_damage_to_another_ref_is_not_in_the_way(tmp_path: Path, source: Path, target: Target) -> None:
    target.ostree("pull-local", source, REF)
    target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "--branch=other", "--subject=other")
    printed = target.ostree("log", REF).stdout
    os.truncate(target.path / "streams/refs/ostree/other", 9)
    target.ostree("log", "other", status=5)
    assert target.ostree("log", REF).stdout == printed


def test_a_version_cannot_pass_for_a_line(tmp_path: Path, target: Target) -> None:
    (tmp_path / "tree").mkdir()
    version = f"--add-metadata-string=version=1\ncommit {'0' * 64}"
    target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", f"--branch={REF}", version)
    assert target.ostree("log", REF).stdout.count("\ncommit ") == 0


def test_what_is_not_here_is_told_like_everywhere(target: Target) -> None:
    assert "'os/none' is not a known ostree ref" in target.ostree("log", "os/none", status=3).stderr


@pytest.mark.parametrize("refs", [(REF, "os/old"), ("os/old", REF)], ids=["newer first", "older first"])
def test_a_commit_that_is_a_parent_keeps_its_own(source: Path, target: Target, refs: tuple[str, str]) -> None:
    ostree(source, "refs", "--create=os/old", f"{REF}^")
    pull = ("ostree", "pull-local", source, *refs, "--depth=1", "--disable-verify-bindings")
    done = cfsctl("--repo", target.path, "--trace", *pull, "--json")
    assert done.stderr.count('"method":"image.put"') == 3
    rows = json.loads(done.stdout)["pulled"]
    assert [sum(row[key] for row in rows) for key in ("metadata_fetched", "files_fetched")] == [7, 3]
    cfsctl("--repo", target.path, "gc")
    history = [ostree(source, "rev-parse", f"os/old{each}").stdout.strip() for each in ("", "^")]
    assert [row["commit"] for row in target.json("log", "os/old")["commits"]] == history
    assert [row["commit"] for row in target.json("log", REF)["commits"]][1:] == history
