"""Pulls that use static deltas made by the ostree command."""

from __future__ import annotations

from pathlib import Path

import pytest

from composefs_ostree.deltas.listing import delta_path
from composefs_ostree.formats import gvariant
from support.commands import run
from support.ostree_delta import SUPERBLOCK
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary
from support.server import Fault, Server, serve

pytestmark = pytest.mark.usefixtures("extensions")


class Commits:
    """Two commits in an archive repository with deltas: from nothing to each, and from the first to the second."""

    def __init__(self, repo: Path, tree: Path) -> None:
        self.repo = repo
        self.tree = make_tree(tree)
        self.first = commit(make_repo(repo), self.tree)
        self.generate("--empty", f"--to={self.first}")
        (self.tree / "usr" / "bin" / "tool").write_bytes((self.tree / "usr" / "bin" / "tool").read_bytes() + b"more")
        (self.tree / "usr" / "new").write_bytes(b"new" * 10_000)
        self.second = commit(repo, self.tree)
        self.generate(f"--from={self.first}", f"--to={self.second}")
        self.generate("--empty", f"--to={self.second}")
        update_summary(repo)

    def generate(self, *options: str) -> None:
        run("ostree", f"--repo={self.repo}", "static-delta", "generate", *options)


@pytest.fixture
def commits(tmp_path: Path) -> Commits:
    return Commits(tmp_path / "source", tmp_path / "tree")


def asked(server: Server) -> dict[str, int]:
    return {kind: server.count(pattern) for kind, pattern in (("parts", "/deltas/*/[0-9]"), ("files", "*.filez"))}


def test_deltas_give_what_objects_give(tmp_path: Path, commits: Commits, target: Target) -> None:
    plain = Target(tmp_path / "plain")
    with serve(commits.repo) as server:
        first = target.json("pull", server.url, f"{BRANCH}@{commits.first}")
        assert first["delta_parts"] == asked(server)["parts"] > 0
        assert asked(server)["files"] == 0
        assert server.count("*.dirtree") == 0
        server.forgive()
        text = target.ostree("pull", server.url, BRANCH).stdout
        assert asked(server)["files"] == 0
        assert f"via {asked(server)['parts']} delta parts\n" in text
        assert server.count("*superblock") == 1
        server.forgive()
        whole = plain.json("pull", server.url, BRANCH, "--no-delta")
        assert server.count("/delta*") == 0
        server.forgive()
        assert target.json("pull", server.url, BRANCH)["metadata_fetched"] == 0
        assert server.count("/delta*") == 0
    here = target.json("inspect", BRANCH)
    assert (here["image"], here["verity"]) == (whole["image"], whole["verity"])
    assert target.json("fsck")["ok"]


def test_a_delta_is_not_used_where_it_does_not_help(commits: Commits, target: Target) -> None:
    with serve(commits.repo) as server:
        part = target.json("pull", server.url, BRANCH, "--subpath=/usr/bin")
        assert (part["delta_parts"], server.count("/delta*")) == (0, 0)
    assert target.json("pull-local", commits.repo, BRANCH)["delta_parts"] == 0


@pytest.mark.parametrize("damage", ["part", "superblock"])
def test_an_altered_delta_is_refused(commits: Commits, target: Target, damage: str) -> None:
    pattern = "/deltas/*/superblock" if damage == "superblock" else "/deltas/*/0"
    with serve(commits.repo) as server:
        server.fault(pattern, Fault(flip=-20))
        refused = target.ostree("pull", server.url, BRANCH, status=5)
        assert "/deltas/" in refused.stderr
        assert refused.stderr.endswith("altered on its way; get it again later, or pull with --no-delta)\n")
        assert target.names() == {}
        assert target.left_over() == []
        server.forgive()
        target.ostree("pull", server.url, BRANCH)


def test_a_superblock_is_the_one_that_is_listed(commits: Commits, target: Target) -> None:
    path = f"{delta_path(None, bytes.fromhex(commits.second))}/superblock"
    metadata, time, *rest = gvariant.decode(SUPERBLOCK, (commits.repo / path).read_bytes())
    with serve(commits.repo) as server:
        server.fault(f"/{path}", Fault(body=gvariant.encode(SUPERBLOCK, (metadata, time ^ 1, *rest))))
        refused = target.ostree("pull", server.url, BRANCH, status=5)
        assert f"{server.url}/{path}: its checksum is not the one that is listed" in refused.stderr
    assert target.names() == {}


@pytest.mark.parametrize("base", ["nothing", "the first"])
def test_a_delta_under_the_name_of_another_is_refused(commits: Commits, target: Target, base: str) -> None:
    first, second = map(bytes.fromhex, (commits.first, commits.second))
    asked, other = (None, second), (None, first)
    if base == "the first":
        asked, other = (first, second), (None, second)
        target.ostree("pull-local", commits.repo, commits.first)
        target.ostree("tag", commits.first, BRANCH)
    superblock = commits.repo / delta_path(*other) / "superblock"
    (commits.repo / delta_path(*asked) / "superblock").write_bytes(superblock.read_bytes())
    update_summary(commits.repo)
    names = target.names()
    with serve(commits.repo) as server:
        refused = target.ostree("pull", server.url, BRANCH, status=5)
    assert f"{delta_path(*asked)}/superblock: it is a delta to another commit" in refused.stderr
    assert target.names() == names


def test_objects_are_fetched_where_the_delta_is_gone(commits: Commits, target: Target, tmp_path: Path) -> None:
    with serve(commits.repo) as server:
        server.fault("/deltas/*/0", Fault(status=404))
        done = target.json("pull", server.url, BRANCH)
        assert done["files_fetched"] == asked(server)["files"] > 0
        assert done["delta_parts"] == 0
    whole = Target(tmp_path / "whole").json("pull-local", commits.repo, BRANCH)
    assert (done["image"], done["verity"]) == (whole["image"], whole["verity"])
