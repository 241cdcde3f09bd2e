"""``--depth`` with verification: no commit of a history gets in that ostree would not let in."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.commands import run
from support.gpg import Keys, keys
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, update_summary
from support.ostree_signed import FOREIGN, GARBAGE, GOOD, KINDS, OTHER_BYTES, UNSIGNED, Follower, History, Signer
from support.server import serve

__all__ = ["extensions", "keys"]

pytestmark = pytest.mark.usefixtures("extensions")

# Signatures of the commits, oldest first; the depth; which of them is refused.
HISTORIES = {
    "all signed": ((GOOD, GOOD, GOOD), -1, None),
    "an unsigned parent": ((GOOD, UNSIGNED, GOOD), 1, 1),
    "a foreign parent": ((GOOD, FOREIGN, GOOD), -1, 1),
    "a parent with a signature over other bytes": ((GOOD, OTHER_BYTES, GOOD), 1, 1),
    "a parent with garbage": ((GOOD, GARBAGE, GOOD), 1, 1),
    "an unsigned first commit": ((UNSIGNED, GOOD, GOOD), -1, 0),
    "a foreign first commit": ((FOREIGN, GOOD, GOOD), 2, 0),
    "unsigned behind what is wanted": ((UNSIGNED, GOOD, GOOD), 1, None),
    "an unsigned newest commit": ((GOOD, GOOD, UNSIGNED), -1, 2),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"))


@pytest.fixture
def history(made: History, tmp_path: Path) -> History:
    return made.copied(tmp_path / "source")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", HISTORIES)
def test_every_commit_is_verified(
    history: History, target: Target, keys: Keys, tmp_path: Path, case: str, kind: str
) -> None:
    states, depth, refused = HISTORIES[case]
    signer = Signer(kind, keys)
    history.sign_all(signer, states)
    expected = set(history.commits if depth < 0 else history.commits[-1 - depth :])
    if kind == "gpg":
        theirs = Follower(tmp_path / "theirs", f"file://{history.repo}", signer.keyring(tmp_path))
        assert theirs.accepts(f"--depth={depth}") == (refused is None)
        assert refused is not None or theirs.commits() == expected
    options = (signer.option(tmp_path), f"--depth={depth}")
    if refused is not None:
        # Also where no tree, or not all of one, is wanted: refused before anything but commit objects is fetched.
        what = ((), ("--commit-metadata-only",), ("--subpath=/usr/changed",))[list(HISTORIES).index(case) % 3]
        with serve(history.repo) as server:
            remote = target.ostree("pull", server.url, BRANCH, *options, *what, status=5).stderr
            assert server.count("*.filez") == server.count("*.dirtree") == 0
        for said in (remote, target.ostree("pull-local", history.repo, BRANCH, *options, status=5).stderr):
            assert f"commit {history.commits[refused]}: " in said
            assert "signature" in said
        assert target.names() == {}
        assert target.left_over() == []
        return
    target.ostree("pull-local", history.repo, BRANCH, *options)
    held = {name.rpartition("-")[2] for name in target.names() if name.startswith("streams/ostree-commit-")}
    assert held == expected
    for commit_id in expected:
        (signature,) = target.json("sign", commit_id, "--verify", options[0])["signatures"]
        assert signature["problem"] is None


def test_a_remotes_keys_hold_for_all_commits(history: History, target: Target, keys: Keys, tmp_path: Path) -> None:
    signer = Signer("gpg", keys)
    history.sign_all(signer, (GOOD, FOREIGN, GOOD))
    with serve(history.repo) as server:
        target.ostree("remote", "add", "o", server.url, f"--gpg-import={signer.keyring(tmp_path)}")
        before = target.names()
        refused = target.ostree("pull", f"o:{BRANCH}", "--depth=1", status=5)
        assert history.commits[1] in refused.stderr
        assert target.names() == before
        target.ostree("pull", f"o:{BRANCH}")
        # Not asked for before: the parent is verified now, although its child is here and trusted.
        before = target.names()
        target.ostree("pull", f"o:{BRANCH}", "--depth=1", status=5)
        assert target.names() == before
        history.sign(history.commits[1], signer, GOOD)
        pulled = target.json("pull", f"o:{BRANCH}", "--depth=1")
    assert pulled["parents"] == [history.commits[1]]


def test_parents_that_came_unverified_are_verified_when_that_is_wanted(
    history: History, target: Target, keys: Keys, tmp_path: Path
) -> None:
    signer = Signer("gpg", keys)
    history.sign_all(signer, (UNSIGNED, GOOD, GOOD))
    target.ostree("pull-local", history.repo, BRANCH, "--depth=-1")
    before = target.names()
    options = (signer.option(tmp_path), "--depth=-1")
    assert history.commits[0] in target.ostree("pull-local", history.repo, BRANCH, *options, status=5).stderr
    assert target.names() == before
    history.sign(history.commits[0], signer, GOOD)
    assert target.json("pull-local", history.repo, BRANCH, *options)["files_fetched"] == 0


def test_one_ref_with_a_bad_history_and_none_is_set(
    history: History, target: Target, keys: Keys, tmp_path: Path
) -> None:
    signer = Signer("gpg", keys)
    history.sign_all(signer, (UNSIGNED, GOOD, GOOD))
    run("ostree", f"--repo={history.repo}", "refs", "--create=test/good", history.commits[2])
    run("ostree", f"--repo={history.repo}", "refs", "--create=test/old", history.commits[1])
    update_summary(history.repo)
    options = (signer.option(tmp_path), "--depth=1")
    with serve(history.repo) as server:
        target.ostree("pull", server.url, "test/good", "test/old", *options, status=5)
        assert target.names() == {}
        target.ostree("pull", server.url, "test/good", *options)
