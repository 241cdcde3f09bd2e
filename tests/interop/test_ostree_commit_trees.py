"""Commits of several trees, of archives and of other commits, held against the ostree of the distribution."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from support.made_repo import OPTIONS, make_system, odd_tree
from support.ostree_making import (
    BRANCH,
    MODES,
    layers,
    make_layers,
    ostree,
    random_layer,
)
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo
from support.server import serve

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.mark.root
def test_trees_over_one_another_are_committed_as_ostree_commits_them(tmp_path: Path) -> None:
    make_layers(tmp_path)
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")

    def commit(case: str, *options: str) -> None:
        words = ("commit", "-b", BRANCH, *layers(tmp_path, case), *options, "--timestamp=@1", "--parent=none")
        made = target.json(*words)["commit"]
        assert (case, options, made) == (case, options, ostree(theirs, *words).stdout.strip())

    for case in (
        *("a b", "b a", "a b a", "a a", "a empty", "empty a", "empty empty", "link over-link", "a over-link"),
        *("a nothing.tar", "nothing.tar a", "root.tar a", "a root.tar", "a top.tar", "top.tar a", "top.tar root.tar"),
        *("a in-d.tar", "a in-d.tar b", "a d.tar", "d.tar a", "a b d.tar in-d.tar", "d.tar in-d.tar a", "a links.tar"),
        *("a itself.tar", "a replaced.tar", "b replaced.tar a replaced.tar", "a below-d.tar +", "below-d.tar a +"),
        *("in-d.tar a +", "a apart.tar +", "apart.tar a apart.tar +", "nothing.tar top.tar +", "link top.tar +"),
        *("a root.tar apart.tar b +", "root.tar below-d.tar a apart.tar d.tar +", "top.tar nothing.tar apart.tar +"),
    ):
        commit(case)
    # Owners of directories that it makes are something else to ostree.
    for options in (("--owner-uid=7", "--owner-gid=8"), ("--no-xattrs", "--canonical-permissions"), ("--no-xattrs",)):
        commit("root.tar a b d.tar in-d.tar links.tar", *options)
    for mode in MODES:
        target.ostree("export", BRANCH, tmp_path / mode, "--mode", mode)
        assert "no errors found" in ostree(tmp_path / mode, "fsck").stdout


@pytest.mark.root
def test_trees_that_ostree_does_not_lay_over_one_another(tmp_path: Path) -> None:
    make_layers(tmp_path)
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")
    for case, message in {
        "a file": "d is both a file and a directory",
        "file b": "d is both a file and a directory",
        "a link": "d is both a file and a directory",
        "link b": "d is both a file and a directory",
        "a directory": "f is both a file and a directory",
        "directory b": "f is both a file and a directory",
        "a file-d.tar": "/d is both a file and a directory",
        "nothing.tar file-d.tar a": "d is both a file and a directory",
        "a symlink-d.tar": "/d is both a file and a directory",
        "a link-d.tar": "/d is both a file and a directory",
        "a d-f.tar": "/f is both a file and a directory",
        "a to-d.tar": "/ln is a link to /d, which is no file before it",
        "a dangling.tar": "/ln is a link to /nothing, which is no file before it",
        "a in-f.tar": "/f/new is in a directory that does not stand before it",
        "a in-f.tar +": "/f is both a file and a directory",
        "a through.tar": "/s/new is in a directory that does not stand before it",
        "a through.tar +": "/s is both a file and a directory",
        "a apart.tar": "/apart/new is in a directory that does not stand before it",
        "in-d.tar a": "/d/new is in a directory that does not stand before it",
        "top.tar nothing.tar": "there is no entry for the root",
    }.items():
        words = ("commit", "-b", BRANCH, *layers(tmp_path, case))
        # For some archives ostree has no error to tell, and ends by an assertion.
        assert ostree(theirs, *words, status=None).returncode in (1, -6), case
        failed = target.ostree(*words, status=5)
        assert (case, message in failed.stderr, failed.stderr) == (case, True, failed.stderr)
        assert len(failed.stderr.splitlines()) == 1
    assert (target.names(), target.left_over(), ostree(theirs, "refs").stdout) == ({}, [], "")


def of_commits(case: str) -> tuple[list[str], list[str]]:
    """Return the arguments for commits that a case names, ours and ostree's; one in brackets is the base."""
    ours, theirs = [], []
    for name in case.split():
        if name.startswith("("):
            ours.append(f"--base=made/{name[1:-1]}")
            theirs.append(ours[-1])
        else:
            ours.append(f"--tree-ref=made/{name}")
            theirs.append(f"--tree=ref=made/{name}")
    return ours, theirs


@pytest.mark.root
def test_trees_of_commits_are_committed_as_ostree_commits_them(tmp_path: Path) -> None:
    make_layers(tmp_path)
    odd_tree(tmp_path / "odd")
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")
    for name in ("a", "b", "empty", "link", "odd"):
        words = ("commit", "-b", f"made/{name}", f"--tree=dir={tmp_path / name}", "--timestamp=@1")
        assert target.json(*words)["commit"] == ostree(theirs, *words).stdout.strip()

    def commit(commits: str, trees: str, *options: str) -> None:
        words = ("commit", "-b", BRANCH, *options, "--timestamp=@1", "--parent=none")
        over = layers(tmp_path, trees)
        mine, of_ostree = of_commits(commits)
        made = target.json(*words, *mine, *over)["commit"]
        assert (commits, trees, options, made) == (
            *(commits, trees, options),
            ostree(theirs, *words, *of_ostree, *over).stdout.strip(),
        )

    changes: tuple[tuple[str, ...], ...]
    changes = ((), ("--owner-uid=7", "--owner-gid=8"), ("--no-xattrs",), ("--no-xattrs", "--canonical-permissions"))
    for options in changes:
        for commits, trees in (
            *(("odd", ""), ("a", ""), ("a b", ""), ("b a", ""), ("a empty", ""), ("odd a b odd", ""), ("odd", "a b")),
            *(("(odd)", "a"), ("(odd)", "empty"), ("(a)", "in-d.tar"), ("(a) b", "a"), ("(odd) b a", "d.tar")),
        ):
            commit(commits, trees, *options)
    # The base alone, which ostree would have something laid over, is the commit's own tree.
    raw = ostree(theirs, "ls", "-RCX", "made/odd").stdout
    target.ostree("commit", "-b", BRANCH, "--base=made/odd", "--owner-uid=7")
    for mode in MODES:
        target.ostree("export", BRANCH, tmp_path / mode, "--mode", mode)
        assert "no errors found" in ostree(tmp_path / mode, "fsck").stdout
        assert ostree(tmp_path / mode, "ls", "-RCX", BRANCH).stdout == raw
    for commits, trees in (("a", "link"), ("(a)", "link"), ("link b", ""), ("(link) b", "")):
        mine, of_ostree = of_commits(commits)
        over = layers(tmp_path, trees)
        assert ostree(theirs, "commit", "-b", BRANCH, *of_ostree, *over, status=1).stderr
        failed = target.ostree("commit", "-b", BRANCH, *mine, *over, status=5)
        assert "d is both a file and a directory" in failed.stderr


def test_a_commit_that_was_pulled_is_the_base_of_another_by_id_and_by_remote_ref(tmp_path: Path) -> None:
    theirs, target = make_repo(tmp_path / "theirs"), Target(tmp_path / "target")
    made = ostree(theirs, "commit", f"--branch={BRANCH}", f"--tree=dir={make_system(tmp_path / 'tree')}", *OPTIONS)
    with serve(theirs) as server:
        target.ostree("remote", "add", "--no-gpg-verify", "origin", server.url)
        pulled = target.json("pull", "origin", BRANCH)
    assert pulled["commit"] == made.stdout.strip()
    (tmp_path / "site/etc").mkdir(parents=True)
    (tmp_path / "site/etc/hostname").write_text("site.example\n")
    over = (f"--tree=dir={tmp_path / 'site'}", "--branch=site", "--timestamp=@2", "--parent=none")
    expected = ostree(theirs, "commit", f"--base={BRANCH}", *over).stdout.strip()
    for base in (pulled["commit"], pulled["commit"][:12], f"origin:{BRANCH}"):
        assert target.json("commit", f"--base={base}", *over)["commit"] == expected


@pytest.mark.root
def test_trees_by_chance_are_committed_or_refused_as_by_ostree(tmp_path: Path) -> None:
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")
    answers = []
    for seed in range(40):
        chooser = random.Random(seed)
        trees = [
            f"--tree={random_layer(tmp_path / f'{seed} {each}', chooser)}" for each in range(chooser.randrange(2, 5))
        ]
        words = ("commit", "-b", BRANCH, *trees, "--timestamp=@1", "--parent=none")
        expected = ostree(theirs, *words, status=None)
        done = target.ostree(*words, "--json", status=None)
        answers.append(expected.returncode)
        if expected.returncode:
            assert (seed, done.returncode) == (seed, 5)
        else:
            assert (seed, json.loads(done.stdout)["commit"]) == (seed, expected.stdout.strip())
    assert answers.count(0) > 10
    assert len(answers) - answers.count(0) > 5
