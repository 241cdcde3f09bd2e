"""Pulling ostree commits by the installed command: what is fetched, what is not, and what stands there afterwards."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.commands import CFSCTL, TIMEOUT, cfsctl, run
from support.ostree_forge import Forge
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary
from support.server import Fault, reserved_port, serve
from support.terminal import on_terminal

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An archive repository with one commit."""
    make_tree(tmp_path / "tree")
    repo = make_repo(tmp_path / "source")
    commit(repo, tmp_path / "tree")
    return repo


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path / "target", "sha512")


def second_commit(source: Path, *arguments: str) -> str:
    tree = source.parent / "tree"
    (tree / "usr" / "share" / "file 5").write_bytes(b"changed" * 1000)
    (tree / "usr" / "new").write_bytes(b"new" * 1000)
    return commit(source, tree, *arguments)


def test_a_pull_prints_what_it_did(source: Path, target: Target) -> None:
    head = run("ostree", f"--repo={source}", "rev-parse", BRANCH).stdout.strip()
    with serve(source) as server:
        lines = target.ostree("pull", server.url, BRANCH).stdout.splitlines()
        counted = sum(server.count(f"*.{kind}") for kind in ("dirtree", "dirmeta", "commit"))
        files = server.count("*.filez")
    facts = [line.split(maxsplit=1) for line in lines]
    assert [word for word, _ in facts] == ["commit", "verity", "image", "tagged", "objects"]
    assert facts[0][1] == head
    assert facts[3][1] == BRANCH
    assert facts[4][1] == f"{counted} metadata + {files} files fetched"
    names = target.names()
    assert names[f"streams/ostree-commit-{head}"].removeprefix("../objects/").replace("/", "") == facts[1][1]
    assert names[f"images/{facts[2][1]}"].removeprefix("../objects/").replace("/", "") == facts[2][1]
    assert names["streams/refs/ostree/test%2Fmain"] == f"../../ostree-commit-{head}"
    assert len(names) == 3
    assert target.left_over() == []


def test_what_was_transferred_is_told_to_who_watches(source: Path, tmp_path: Path) -> None:
    def pull(name: str, *names: str) -> dict[str, Any]:
        done = Target(tmp_path / name).ostree("pull", server.url, *names, "--json")
        assert done.stderr == ""
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def transferred() -> int:
        """Bytes that the server has sent; what is not there has a page of ten."""
        files = [source / path.lstrip("/") for path in server.requests]
        return sum(each.stat().st_size if each.is_file() else 10 for each in files)

    with serve(source) as server:
        pulled = pull("1", BRANCH)
        assert pulled["bytes_transferred"] == transferred()
        server.forgive()
        several = pull("2", f"{BRANCH}@{pulled['commit']}", pulled["commit"])
        assert several["pulled"][0]["files_fetched"] == pulled["files_fetched"]
        assert several["bytes_transferred"] == transferred()

        objects = f"{pulled['metadata_fetched']} metadata, {pulled['files_fetched']} content objects fetched"
        size = pulled["bytes_transferred"] // 1024
        told = re.compile(rf"{objects}; {size} KiB transferred in ([0-9]+) seconds\r?\n")
        pulls = ("ostree", "pull", server.url, BRANCH)
        assert Target(tmp_path / "3").ostree("pull", server.url, BRANCH).stderr == ""
        start = time.monotonic()
        found = told.search(cfsctl("--repo", Target(tmp_path / "4").path, "-v", *pulls, pulled["commit"]).stderr)
        assert found
        assert int(found[1]) <= time.monotonic() - start + 0.5  # rounded
        status, shown = on_terminal("--repo", Target(tmp_path / "5").path, *pulls)
        assert status == 0
        assert told.search(shown.decode())
        status, shown = on_terminal("-q", "--repo", Target(tmp_path / "6").path, *pulls)
        assert status == 0
        assert b"transferred" not in shown
    local = cfsctl("-v", "--repo", Target(tmp_path / "7").path, "ostree", "pull-local", source, BRANCH, "--json")
    assert json.loads(local.stdout)["bytes_transferred"] == 0
    assert "transferred" not in local.stderr


def test_nothing_is_fetched_twice(source: Path, target: Target) -> None:
    with serve(source) as server:
        first = target.json("pull", server.url, BRANCH)
        before = target.names()
        server.forgive()
        second = target.json("pull", server.url, BRANCH)
        assert server.count("/objects/*") == server.count("*.commitmeta") == 1  # signatures may have come
    assert second == {**first, "metadata_fetched": 0, "files_fetched": 0}
    assert target.names() == before


def test_a_commit_that_is_here_still_gets_its_ref(source: Path, target: Target) -> None:
    head = run("ostree", f"--repo={source}", "rev-parse", BRANCH).stdout.strip()
    lines = target.ostree("pull-local", source, head).stdout
    assert "tagged" not in lines
    assert "streams/refs/ostree/test%2Fmain" not in target.names()
    lines = target.ostree("pull-local", source, BRANCH).stdout
    assert f"tagged  {BRANCH}\n" in lines
    assert "objects 0 metadata + 0 files fetched" in lines
    assert "streams/refs/ostree/test%2Fmain" in target.names()


def test_refs_come_from_the_summary_where_there_is_one(source: Path, target: Target) -> None:
    head = run("ostree", f"--repo={source}", "rev-parse", BRANCH).stdout.strip()
    update_summary(source)
    run("ostree", f"--repo={source}", "refs", "--create=later/ref", BRANCH)
    with serve(source) as server:
        assert target.json("pull", server.url, BRANCH)["commit"] == head
        assert server.count("/refs/*") == 0
        refused = target.ostree("pull", server.url, "later/ref", status=3)
        assert refused.stderr.count("\n") == 1
        assert "has no ref 'later/ref'" in refused.stderr
        assert server.count("/refs/*") == 0
        (source / "summary").unlink()
        assert target.json("pull", server.url, "later/ref")["ref"] == "later/ref"
        assert server.count("/refs/heads/later/ref") == 1


def test_the_image_is_the_same_by_every_way(source: Path, tmp_path: Path) -> None:
    results = []
    with serve(source) as server:
        for number, arguments in enumerate([("pull", server.url), ("pull", server.url + "/"), ("pull-local", source)]):
            target = Target(tmp_path / f"target-{number}")
            results.append(target.json(*arguments, BRANCH))
            assert target.ostree("compute-id", BRANCH).stdout.strip() == results[0]["image"]
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("by", ["parent", "ref", "base-name"])
def test_unchanged_files_come_from_the_base(source: Path, tmp_path: Path, by: str) -> None:
    target = Target(tmp_path / "target")
    whole = Target(tmp_path / "whole")
    with serve(source) as server:
        first = target.json("pull", server.url, BRANCH)
        options = []
        if by == "base-name":
            target.ostree("untag", BRANCH)
            target.ostree("tag", first["commit"], "the/base")
            options = ["--base-name", "the/base"]
        elif by == "parent":
            target.ostree("untag", BRANCH)
        second_commit(source, *([] if by == "parent" else ["--parent=none"]))
        server.forgive()
        second = target.json("pull", server.url, BRANCH, *options)
        assert (second["files_fetched"], server.count("*.filez")) == (2, 2)
        assert second["metadata_fetched"] <= 5
        everything = whole.json("pull", server.url, BRANCH)
    assert everything["files_fetched"] > 10
    assert (everything["image"], everything["verity"]) == (second["image"], second["verity"])
    # The new commit's stream stands alone: nothing of the base is needed any more.
    target.ostree("untag", "the/base" if by == "base-name" else BRANCH, status=None)
    assert target.ostree("dump", second["commit"]).stdout == whole.ostree("dump", BRANCH).stdout


def test_unchanged_files_of_a_new_ref_come_from_the_one_with_the_likest_name(source: Path, target: Target) -> None:
    tree = source.parent / "tree"
    commit(source, tree / "usr/bin", branch="also/main")
    for branch in ("new/test/main", "test/other", "else"):
        commit(source, tree, branch=branch, subject=branch)
    with serve(source) as server:
        target.ostree("pull", server.url, "also/main", BRANCH)
        for branch in ("new/test/main", "test/other", "else"):
            server.forgive()
            fetched = target.json("pull", server.url, branch)["files_fetched"]
            assert fetched == server.count("*.filez")
            assert fetched > 10 if branch == "else" else fetched == 0


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_objects_of_the_base_that_are_gone_are_fetched_again(source: Path, target: Target, damage: str) -> None:
    target.ostree("pull-local", source, BRANCH)
    second_commit(source)
    [largest] = sorted((target.path / "objects").rglob("*"), key=lambda path: path.stat().st_size)[-1:]
    content = largest.read_bytes()
    if damage == "missing":
        largest.unlink()
    else:
        largest.chmod(0o644)
        os.truncate(largest, len(content) // 2)
    result = target.json("pull-local", source, BRANCH)
    assert result["files_fetched"] == 3
    assert largest.read_bytes() == content


def test_bases_that_cannot_be_read_are_done_without(source: Path, target: Target) -> None:
    # Two refs of one new commit, with a base each: the second is not even needed.
    ostree = ("ostree", f"--repo={source}", "refs", "--force", "--create=test/other", BRANCH)
    run(*ostree)
    second_commit(source)
    target.ostree("pull-local", source, BRANCH, "test/other")
    for name in target.names():
        if name.startswith("streams/ostree-commit-"):
            stream = (target.path / name).resolve()
            stream.chmod(0o644)
            stream.write_bytes(stream.read_bytes()[:-1] + b"?")
    (source.parent / "tree" / "third").write_bytes(b"third" * 1000)
    commit(source, source.parent / "tree")
    run(*ostree)
    done = target.ostree("pull-local", source, BRANCH, "test/other", "--json")
    rows = json.loads(done.stdout)["pulled"]
    assert [row["ref"] for row in rows] == [BRANCH, "test/other"]
    assert len({(row["commit"], row["image"], row["files_fetched"]) for row in rows}) == 1
    assert rows[0]["files_fetched"] > 10
    assert done.stderr.count("is not used as a base") == 1


def test_the_last_of_one_history_has_its_parent_where_another_one_goes_on(source: Path, target: Target) -> None:
    second_commit(source)
    run("ostree", f"--repo={source}", "refs", "--create=test/old", BRANCH)
    commit(source, source.parent / "tree")
    target.ostree("pull-local", source, BRANCH, "test/old", "--depth=1")
    cfsctl("--repo", target.path, "gc")
    assert sum(name.startswith("streams/ostree-commit-") for name in target.names()) == 3


def test_what_came_as_the_parent_of_one_ref_is_not_counted_for_another(source: Path, target: Target) -> None:
    run("ostree", f"--repo={source}", "refs", "--create=test/old", BRANCH)
    second_commit(source)
    done = target.ostree("pull-local", source, BRANCH, "test/old", "--depth=1", "--json")
    first, second = json.loads(done.stdout)["pulled"]
    assert first["parents"] == [second["commit"]]
    assert first["files_fetched"] > 0
    assert second["files_fetched"] == second["metadata_fetched"] == 0


@pytest.mark.parametrize("is_new", [False, True], ids=["the same commit", "a new one"])
def test_a_ref_whose_stream_has_lost_its_name_is_pulled_again(source: Path, target: Target, is_new: bool) -> None:
    target.ostree("pull-local", source, BRANCH)
    [ref] = [target.path / name for name in target.names() if name.startswith("streams/refs/")]
    (target.path / "streams" / ref.readlink().name).unlink()
    if is_new:
        second_commit(source)
    target.ostree("pull-local", source, BRANCH)
    assert (target.path / "streams" / ref.readlink().name).exists()
    cfsctl("--repo", target.path, "fsck")


def test_an_image_that_is_gone_is_made_again(source: Path, target: Target) -> None:
    first = target.json("pull-local", source, BRANCH)
    image = target.path / "objects" / first["image"][:2] / first["image"][2:]
    image.unlink()
    again = target.json("pull-local", source, BRANCH)
    assert (again["image"], again["verity"], again["files_fetched"]) == (first["image"], first["verity"], 0)
    assert image.exists()
    cfsctl("--repo", target.path, "fsck")


def test_a_name_that_leads_to_something_else_is_set_anew(source: Path, target: Target) -> None:
    image = target.json("pull-local", source, BRANCH)["image"]
    names = target.names()
    [stream] = [target.path / name for name in names if name.startswith("streams/ostree-commit-")]
    stream.unlink()
    stream.symlink_to(f"../objects/{image[:2]}/{image[2:]}")
    told = target.ostree("pull-local", source, BRANCH).stderr
    assert f"{stream.name} is pulled again" in told
    assert told.count("warning: ") == 1
    assert target.names() == names


def test_compat_decides_the_image_and_can_be_changed(source: Path, tmp_path: Path) -> None:
    os.setxattr(tmp_path / "tree" / "usr" / "bin" / "tool", "user.k", b"v")
    commit(source, tmp_path / "tree")
    plain, compat = Target(tmp_path / "plain"), Target(tmp_path / "compat")
    ours = plain.json("pull-local", source, BRANCH)
    theirs = compat.json("pull-local", source, BRANCH, "--compat=composefs-rs")
    assert ours["image"] != theirs["image"]
    assert "user.k=v" in plain.ostree("dump", BRANCH).stdout
    assert "user.k\\x00=v" in plain.ostree("dump", BRANCH, "--compat=composefs-rs").stdout

    # Without --compat what is here stays; with it the image is made again, and the stream names it.
    assert compat.json("pull-local", source, BRANCH) == {**theirs, "metadata_fetched": 0, "files_fetched": 0}
    again = compat.json("pull-local", source, BRANCH, "--compat=none")
    assert (again["image"], again["verity"], again["files_fetched"]) == (ours["image"], ours["verity"], 0)
    assert compat.json("inspect", BRANCH)["image"] == ours["image"]
    assert compat.json("pull-local", source, BRANCH, "--compat=none")["metadata_fetched"] == 0
    delta = tmp_path / "delta"
    run("ostree", f"--repo={source}", "static-delta", "generate", BRANCH, "--empty", "--inline", f"--filename={delta}")
    applied = Target(tmp_path / "applied").json("apply-delta", delta, "--compat=composefs-rs")
    assert applied["image"] == theirs["image"]


def test_a_commit_for_other_refs_is_refused(tmp_path: Path, target: Target) -> None:
    make_tree(tmp_path / "tree")
    source = make_repo(tmp_path / "source")
    head = run("ostree", f"--repo={source}", "commit", "--branch=os/stable", "--subject=x", tmp_path / "tree").stdout
    run("ostree", f"--repo={source}", "refs", "--create=os/evil", "os/stable")
    refused = target.ostree("pull-local", source, "os/evil", status=5)
    assert "bound to os/stable, not to 'os/evil'" in refused.stderr
    assert target.names() == {}
    assert target.json("pull-local", source, "os/stable")["commit"] == head.strip()
    target.ostree("pull-local", source, "os/evil", status=5)  # although the commit is here now
    assert target.json("pull-local", source, "os/evil", "--disable-verify-bindings")["ref"] == "os/evil"


def test_an_interrupted_pull_goes_on_where_it_stopped(source: Path, target: Target) -> None:
    with serve(source) as server:
        files = [path for path in (source / "objects").rglob("*.filez") if path.stat().st_size > 10_000]
        # Not before something else has come in: which of them is answered first is theirs to race for.
        server.fault(f"*{files[0].name}", Fault(status=404, until=lambda: any(target.path.glob("objects/*/*"))))
        target.ostree("pull", server.url, BRANCH, status=3)
        assert target.names() == {}
        assert target.left_over() == []
        server.forgive()
        resumed = target.json("pull", server.url, BRANCH)
        total = sum(path.suffix == ".filez" for path in (source / "objects").rglob("*"))
        assert 1 <= resumed["files_fetched"] < total
        server.forgive()
    fresh = Target(target.path.with_name("fresh"), "sha512").json("pull-local", source, BRANCH)
    assert (fresh["image"], fresh["verity"]) == (resumed["image"], resumed["verity"])


def test_what_came_in_together_with_a_failure_is_kept(source: Path, target: Target) -> None:
    # The files of one directory are handed to one worker at once, which answers for sixteen of them in one message.
    line = run("ostree", f"--repo={source}", "ls", "-C", BRANCH, "/usr/share/file 6").stdout
    file_id = next(word for word in line.split() if len(word) == 64)
    path = source / "objects" / file_id[:2] / f"{file_id[2:]}.filez"
    total = sum(path.suffix == ".filez" for path in (source / "objects").rglob("*"))
    path.rename(source / "aside")
    refused = target.ostree("pull-local", source, BRANCH, status=3)
    assert str(path) in refused.stderr
    assert target.left_over() == []
    (source / "aside").rename(path)
    assert 1 <= target.json("pull-local", source, BRANCH)["files_fetched"] <= total - 5


def test_all_that_came_in_with_the_failure_is_kept(tmp_path: Path, target: Target) -> None:
    """Although nothing of it had been given to the core by then."""
    tree = tmp_path / "few"
    tree.mkdir()
    for number in range(10):
        (tree / str(number)).write_bytes(b"%d" % number * 1000)
    repo = make_repo(tmp_path / "few-repo")
    commit(repo, tree)
    path = min((repo / "objects").rglob("*.filez"))
    path.rename(tmp_path / "aside")
    target.ostree("pull-local", repo, BRANCH, status=3)
    (tmp_path / "aside").rename(path)
    assert target.json("pull-local", repo, BRANCH)["files_fetched"] == 1


def test_what_passes_is_tried_again(source: Path, target: Target) -> None:
    # Of one file each: that none is asked for a fourth time does not hang on who comes first.
    refused, cut = sorted((source / "objects").rglob("*.filez"))[:2]
    with serve(source) as server:
        server.fault(f"*/{refused.name}", Fault(status=503), times=2)
        server.fault("*.dirtree", Fault(close=True), times=1)
        server.fault("*.dirmeta", Fault(truncate=True, keep=5), times=1)
        server.fault(f"*/{cut.name}", Fault(truncate=True, keep=40), times=1)
        server.fault("/config", Fault(status=429), times=1)
        over_trouble = target.json("pull", server.url, BRANCH)
    without = Target(target.path.with_name("fresh"), "sha512").json("pull-local", source, BRANCH)
    assert over_trouble == without


def test_two_pulls_at_once_both_succeed(source: Path, target: Target) -> None:
    with serve(source) as server:
        argv = [CFSCTL, "--repo", target.path, "ostree", "pull", server.url, BRANCH]
        both = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        outcomes = [(process.communicate(timeout=TIMEOUT), process.returncode) for process in both]
    assert [status for _, status in outcomes] == [0, 0], outcomes
    assert len({out.rpartition("objects")[0] for (out, _), _ in outcomes}) == 1
    assert len(target.names()) == 3
    assert target.left_over() == []


def test_a_ref_that_is_set_while_it_is_pulled_stays_as_it_was_set(source: Path, target: Target) -> None:
    """Else a pull that has found nothing older could take the place of what is newer."""
    with serve(source) as server:
        first = target.json("pull", server.url, BRANCH)["commit"]
        target.ostree("untag", BRANCH)
        second_commit(source)

        def set_meanwhile() -> bool:
            target.ostree("tag", first, BRANCH)
            return True

        server.fault("*.filez", Fault(until=set_meanwhile), times=1)
        told = target.ostree("pull", server.url, BRANCH, status=4).stderr
    assert f"ref '{BRANCH}' was changed by somebody else during the pull (run the command again" in told
    assert target.names()["streams/refs/ostree/test%2Fmain"] == f"../../ostree-commit-{first}"


def test_a_commit_that_grows_while_more_of_it_is_pulled_keeps_what_came(source: Path, target: Target) -> None:
    with serve(source) as server:
        commit_id = target.json("pull", server.url, BRANCH, "--subpath=/usr/bin")["commit"]

        def pull_meanwhile() -> bool:
            target.ostree("pull-local", source, BRANCH, "--subpath=/usr/share/twin")
            return True

        server.fault("*.filez", Fault(until=pull_meanwhile), times=1)
        told = target.ostree("pull", server.url, BRANCH, "--subpath=/usr/share", status=4).stderr
    assert f"commit {commit_id} was changed by somebody else during the pull (run the command again" in told
    assert target.json("fsck")["partial"] == {commit_id: ["/usr/bin", "/usr/share/twin"]}


def test_redirects_are_followed_to_http_only(source: Path, target: Target) -> None:
    with serve(source) as there, serve(source) as here:
        here.fault("/config", Fault(status=302, headers=(("Location", f"{there.url}/config"),)))
        target.ostree("pull", here.url, BRANCH)
        assert there.count("/config") == 1
        here.forgive()
        here.fault("/config", Fault(status=302, headers=(("Location", f"file://{source}/config"),)))
        refused = target.ostree("pull", here.url, BRANCH, status=6)
        assert f"{here.url}/config" in refused.stderr


def test_passwords_are_not_shown(source: Path, target: Target) -> None:
    with serve(source) as server:
        url = server.url.replace("http://", "http://user:geheim@")
        refused = target.ostree("pull", url, "no/ref", status=3)
        assert "geheim" not in refused.stderr
        assert "127.0.0.1" in refused.stderr


@pytest.mark.parametrize("mode", ["bare", "bare-user", "bare-user-only"])
def test_over_http_other_modes_are_refused_with_the_remedy(tmp_path: Path, target: Target, mode: str) -> None:
    with serve(make_repo(tmp_path / "source", mode)) as server:
        refused = target.ostree("pull", server.url, BRANCH, status=9)
    assert f"mode '{mode}'" in refused.stderr
    assert "ostree init" in refused.stderr


def test_what_is_no_repository_is_refused(tmp_path: Path, target: Target) -> None:
    assert "not an ostree repository" in target.ostree("pull-local", tmp_path, BRANCH, status=3).stderr
    with serve(tmp_path) as server:
        assert "not an ostree repository" in target.ostree("pull", server.url, BRANCH, status=3).stderr
    with reserved_port() as port:
        url = f"http://127.0.0.1:{port}"
        assert f"{url}/config" in target.ostree("pull", url, BRANCH, status=6).stderr
    assert "not an ostree repository" in target.ostree("pull", f"file://{tmp_path}", BRANCH, status=3).stderr
    for path in (str(tmp_path), "a/b"):
        refused = target.ostree("pull", path, BRANCH, status=2).stderr
        assert f"'{path}' is not an http or https URL" in refused
        assert "pull-local" in refused
    refused = target.ostree("pull", "http://127.0.0.1/my repo", BRANCH, status=2).stderr
    assert "the URL 'http://127.0.0.1/my repo' has a space" in refused
    assert "%20" in refused
    # The page that some servers have for every path, and what git keeps.
    for config, words in (
        ("<html>ok</html>\n", "config: this is a web page, not the config of an ostree repository"),
        (
            "[core]\n\trepositoryformatversion = 0\n",
            "config: it says neither mode nor repo_version, so this is not an ostree repository",
        ),
        (
            "[core]\nmode=archive-z2\nrubbish\n",
            "config: line 3 is neither a section nor key=value: 'rubbish', so this is not an ostree repository",
        ),
    ):
        (tmp_path / "config").write_text(config)
        with serve(tmp_path) as server:
            assert words in target.ostree("pull", server.url, BRANCH, status=3).stderr
        assert "not an ostree repository" in target.ostree("pull-local", tmp_path, BRANCH, status=3).stderr


def test_a_long_history_keeps_no_commit_open_to_the_end(tmp_path: Path, target: Target) -> None:
    """Neither did memory get back anything of a commit, before the last of a call was there."""
    forge = Forge(tmp_path / "source")
    tree, commit_id = forge.tree([("file", forge.file())], []), b""
    for number in range(400):
        commit_id = forge.commit(tree, time=number, parent=commit_id)
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (310, 310))  # 256 directories of objects, and some
    pulled = target.ostree("pull-local", forge.path, BRANCH, "--depth=-1", preexec_fn=limit).stdout
    assert "parents 399\n" in pulled


@pytest.mark.parametrize("ref", ["../x", "a//b", "/a", "-x", "a b"])
def test_names_that_are_no_refs_are_refused(source: Path, target: Target, ref: str) -> None:
    assert "is not an ostree ref" in target.ostree("pull-local", source, "--", ref, status=2).stderr


def test_a_name_that_is_too_long_is_told_so(source: Path, target: Target) -> None:
    refused = target.ostree("pull-local", source, "os/" * 1500 + "stable", status=2).stderr
    assert "'… has 4506 characters; at most 4096 are possible\n" in refused


def test_an_unknown_commit_and_base(source: Path, target: Target) -> None:
    refused = target.ostree("pull-local", source, "0" * 64, status=3)
    assert "0" * 64 in refused.stderr
    for _ in range(2):  # also if nothing is new
        refused = target.ostree("pull-local", source, BRANCH, "--base-name", "no/such", status=3)
        assert "'no/such' is not a known ostree ref" in refused.stderr
        target.ostree("pull-local", source, BRANCH)


def test_commands_that_read_change_nothing(source: Path, target: Target) -> None:
    target.ostree("pull-local", source, BRANCH)
    copy = target.path.with_name("copy")
    shutil.copytree(target.path, copy, symlinks=True)
    before = sorted(copy.rglob("*"))
    for command in (("inspect", BRANCH), ("dump", BRANCH), ("compute-id", BRANCH), ("images",)):
        cfsctl("--repo", copy, "ostree", *command)
    assert sorted(copy.rglob("*")) == before
