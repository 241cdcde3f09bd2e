"""Summaries and their index: kept, patched, verified; collections; as ostree and flatpak write them."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from email.utils import formatdate
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from composefs_ostree.formats import gvariant
from support.commands import CFSCTL, cfsctl, run
from support.gpg import Keys, keys
from support.nginx import nginx
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary
from support.peers import require
from support.remotes import cache_files, machine, pulls, remote
from support.server import Fault, listening, serve
from support.strace import paths, read, recorder

__all__ = ["extensions", "keys", "machine"]

pytestmark = pytest.mark.usefixtures("extensions")


def test_a_summary_that_has_not_changed_is_not_sent(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree", files=1)
    commit(repo, tree, branch="a")
    update_summary(repo)
    os.utime(repo / "summary", (1_000_000_000, 1_000_000_000))  # what is of this very second is not kept
    with nginx(tmp_path / "nginx", repo) as server:
        remote(target, server.url)

        def refs() -> tuple[list[str], str]:
            rows = target.json("remote", "refs", "o")["refs"]
            return [row["name"] for row in rows], next(row[4] for row in reversed(server.log()) if "/summary" in row[3])

        assert refs() == (["a"], "200")
        assert refs() == (["a"], "304")
        commit(repo, tree, branch="b")
        update_summary(repo)
        os.utime(repo / "summary", (1_100_000_000, 1_100_000_000))
        assert refs() == (["a", "b"], "200")
        assert refs() == (["a", "b"], "304")
        (kept,) = cache_files("summary-*")
        whole = kept.read_bytes()
        for damaged in (whole[:-1] + b"x", whole[:20]):
            kept.write_bytes(damaged)
            assert refs() == (["a", "b"], "200")


@pytest.mark.parametrize(
    "settings", ["if_modified_since before;", "add_header Last-Modified ''; add_header ETag *;"], ids=["date", "tag"]
)
def test_what_any_file_would_fit_is_not_asked_with(tmp_path: Path, target: Target, settings: str) -> None:
    """A summary with a date that is still ahead, from a wrong clock or somebody on the way, or the tag ``*``."""
    repo = make_repo(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree", files=1)
    commit(repo, tree, branch="a")
    update_summary(repo)
    os.utime(repo / "summary", (4_000_000_000, 4_000_000_000))
    with nginx(tmp_path / "nginx", repo, settings=f"etag off; {settings}") as server:
        remote(target, server.url)
        assert target.ostree("remote", "refs", "o").stdout == "o:a\n"
        commit(repo, tree, branch="b")
        update_summary(repo)
        assert target.ostree("remote", "refs", "o").stdout == "o:a\no:b\n"
        assert [row[4] for row in server.log() if "/summary " in row[3]] == ["200", "200"]


def test_a_summary_that_changes_in_the_second_in_which_it_was_read(tmp_path: Path, target: Target) -> None:
    """Its date and size are the same; ostree fetches a summary that is not signed each time."""
    repo = make_repo(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree", files=1)
    moment = 1_700_000_000

    class Handler(SimpleHTTPRequestHandler):
        """Serves the repository, with a clock that stands still."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(repo))

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(moment if timestamp is None else timestamp, usegmt=True)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with listening(Handler) as place:
        for number in range(2):
            last = commit(repo, tree, f"--timestamp=@{moment + number}")
            update_summary(repo)
            os.utime(repo / "summary", (moment, moment))
            assert target.json("pull", f"http://{place}", BRANCH)["commit"] == last


def test_collections(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    other = make_repo(tmp_path / "other")
    tree = make_tree(tmp_path / "tree", files=1)
    for path, name in ((repo, "Own"), (other, "Other")):
        (path / "config").write_text(f"{(path / 'config').read_text()}collection-id=org.example.{name}\n")
        run(require("ostree"), "commit", f"--repo={path}", "-b", f"os/{name.lower()}", tree)
    run("ostree", "pull-local", f"--repo={repo}", "--disable-verify-bindings", other, "os/other")
    run("ostree", "refs", f"--repo={repo}", "-c", "--create=org.example.Other:os/other", "os/other")
    run("ostree", "refs", f"--repo={repo}", "--delete", "os/other")
    update_summary(repo)
    rows = json.loads(cfsctl("ostree", "list-refs", f"file://{repo}", "--collections", "--json").stdout)["refs"]
    theirs = run("ostree", "refs", f"--repo={repo}", "-c").stdout.split("\n")
    assert sorted(f"({row['collection']}, {row['name']})" for row in rows) == sorted(filter(None, theirs))
    assert len(rows) == 3  # ostree-metadata is one
    with serve(repo) as server:
        for name, ref, status in (
            ("Own", "os/own", 0),
            ("Other", "os/other", 0),
            ("Other", "os/own", 3),
            ("No", "os/own", 3),
        ):
            remote(target, server.url, f"--collection-id=org.example.{name}")
            pulls(target, "o", ref, status=status)
            listed = [row["name"] for row in target.json("remote", "refs", "o")["refs"]]
            assert (ref in listed) == (status == 0)
        (repo / "summary").write_bytes((other / "config").read_bytes())
        assert "summary" in pulls(target, "o", "os/own", status=5)
        (repo / "summary").unlink()
        for name, ref, status in (("Own", "os/own", 0), ("Other", "os/other", 0), ("Other", "os/own", 5)):
            remote(target, server.url, f"--collection-id=org.example.{name}")
            pulls(target, "o", ref, status=status)


def test_the_summary_index_of_flatpak(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree", files=1)

    def update(*refs: str) -> None:
        for ref in refs:
            commit(repo, tree, branch=ref)
        run(require("flatpak"), "build-update-repo", repo)

    update(
        "app/org.a.A/x86_64/stable", "app/org.a.A/aarch64/stable", *(f"app/org.b.B{n}/x86_64/stable" for n in range(40))
    )
    assert (repo / "summary.idx").exists()
    with serve(repo) as server:
        remote(target, server.url)

        def names(*arguments: str) -> set[str]:
            return {row["name"] for row in target.json("remote", "refs", "o", *arguments)["refs"]}

        assert "app/org.a.A/aarch64/stable" in names()
        first = names("--subset=x86_64")
        assert first == names_by_flatpak(repo)
        assert "appstream/aarch64" in names() - first
        assert server.count("/summaries/*.gz") == 1
        server.forgive()
        assert names("--subset=x86_64") == first
        assert server.count("/summaries/*") == 0
        update("app/org.a.New/x86_64/stable")
        deltas = list((repo / "summaries").glob("*.delta"))
        assert deltas
        server.forgive()
        assert names("--subset=x86_64") - first == {"app/org.a.New/x86_64/stable"}
        assert (server.count("/summaries/*.delta"), server.count("/summaries/*.gz")) == (1, 0)

        update("app/org.a.Newer/x86_64/stable")
        server.forgive()
        server.fault("*.delta", Fault(body=b"rubbish"))
        assert "app/org.a.Newer/x86_64/stable" in names("--subset=x86_64")
        assert (server.count("/summaries/*.delta"), server.count("/summaries/*.gz")) == (1, 1)

        update("app/org.a.Another/x86_64/stable")
        server.forgive()
        server.fault("*.delta", Fault(body=gzip.compress(b"xadf" + bytes(4))))  # of no operations: it makes nothing
        told = target.ostree("remote", "refs", "o", "--subset=x86_64")
        assert "app/org.a.Another/x86_64/stable" in told.stdout
        assert ".delta is not used: what it makes has another checksum" in told.stderr

        update("app/org.a.Newest/x86_64/stable")
        older = min((repo / "summaries").glob("*.gz"), key=age)
        for fault in (Fault(flip=-1), Fault(body=older.read_bytes())):
            server.forgive()
            server.fault("/summaries/*", fault)
            assert "summaries/" in target.ostree("remote", "refs", "o", "--subset=x86_64", status=5).stderr
        assert server.count(f"/summaries/{older.name}") == 0
        server.forgive()
        pulls(target, "o", "app/org.a.Newest/x86_64/stable")
        assert server.count("/summary") == 0
        assert "aarch64" in target.ostree("remote", "refs", "o", "--subset=riscv", status=3).stderr
    rows = json.loads(cfsctl("ostree", "list-refs", "--path", repo, "--subset=x86_64", "--json").stdout)["refs"]
    assert {row["name"] for row in rows} == names_by_flatpak(repo)


def test_the_collection_is_told_by_the_summary_index(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    run(require("ostree"), "config", f"--repo={repo}", "set", "core.collection-id", "org.a.Stable")
    ref = exported(repo, tmp_path / "tree", "org.a.A", "--collection-id=org.a.Stable")
    run("flatpak", "build-update-repo", repo)
    with serve(repo) as server:
        remote(target, server.url, "--collection-id=org.a.Stable")
        pulls(target, "o", ref)
        assert server.count("/summaries/*.gz") == 1
        assert server.count("/summary") == 0
        remote(target, server.url, "--collection-id=org.a.Other")
        assert "of collection org.a.Other" in pulls(target, "o", ref, status=3)


def test_a_remote_of_a_subset_has_nothing_else(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    inside = exported(repo, tmp_path / "a", "org.a.A", "--subset=verified")
    outside = exported(repo, tmp_path / "b", "org.b.B")
    beside = exported(repo, tmp_path / "c", "org.c.C", "--subset=verified2")
    run("flatpak", "build-update-repo", repo)
    with serve(repo) as server:
        remote(target, server.url, "--set=xa.subset=verified")
        pulls(target, "o", "appstream2/verified-x86_64")
        pulls(target, "o", inside)
        listed = [row["name"] for row in target.json("remote", "refs", "o")["refs"]]
        assert inside in listed
        assert not {outside, beside} & {*listed}
        for ref in listed:
            pulls(target, "o", ref)
        told = pulls(target, "o", outside, status=3)
        assert f"no ref '{outside}' in its subset verified" in told
        assert "xa.subset" in told
        remote(target, server.url, "--set=xa.subset=free")
        names = "(there are verified-x86_64, verified2-x86_64, x86_64)"
        assert f"no subset 'free-x86_64' {names}" in pulls(target, "o", inside, status=3)
        told = target.ostree("remote", "refs", "o", status=3).stderr
        assert f"no subset 'free' {names}" in told
        assert server.count("/summary") == 0
        remote(target, repo.as_uri(), "--set=xa.subset=verified")
        assert [row["name"] for row in target.json("remote", "refs", "o")["refs"]] == listed
        pulls(target, "o", inside)
        pulls(target, "o", outside, status=3)
        for path in repo.glob("summary.idx*"):
            path.unlink()
        pulls(target, "o", inside)


def test_a_summary_that_the_index_names_and_nobody_has(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    index = gvariant.encode("(a{s(ayaaya{sv})}a{sv})", ({"x86_64": (bytes(32), [], {})}, {}))
    (repo / "summary.idx").write_bytes(index)
    with serve(repo) as server:
        told = pulls(target, server.url, "app/org.a.A/x86_64/stable", status=3)
        assert f"/summaries/{'0' * 64}.gz: not found, although the summary index names it (" in told
        assert server.count("/summary.idx") == 1


def exported(repo: Path, tree: Path, name: str, *words: str) -> str:
    """Have flatpak export a small app; return its ref."""
    for directory in ("files", "export"):
        (tree / directory).mkdir(parents=True)
    (tree / "metadata").write_text(f"[Application]\nname={name}\nruntime=org.a.P/x86_64/1\n")
    run(require("flatpak"), "build-export", "--disable-sandbox", "--arch=x86_64", *words, repo, tree, "stable")
    return f"app/{name}/x86_64/stable"


def names_by_flatpak(repo: Path) -> set[str]:
    """Return the refs in the newest summary of x86_64, by their form alone."""
    texts = [gzip.decompress(path.read_bytes()) for path in sorted((repo / "summaries").glob("*.gz"), key=age)]
    newest = [text for text in texts if b"appstream2/x86_64\0" in text][-1]
    return {name.decode() for name in re.findall(rb"(?:app|appstream2?)/[-./_A-Za-z0-9]+", newest)}


def age(path: Path) -> int:
    return path.stat().st_mtime_ns


def test_nothing_new_sends_no_bodies(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    commit(repo, make_tree(tmp_path / "tree", files=1))
    update_summary(repo)
    os.utime(repo / "summary", (1_000_000_000, 1_000_000_000))  # what is of this very second is not kept
    with nginx(tmp_path / "nginx", repo) as server:
        remote(target, server.url)
        target.ostree("pull", "o", BRANCH)
        before = len(server.log())
        assert target.json("pull", "o", BRANCH)["files_fetched"] == 0
        later = [(row[3].split()[1].rpartition("/")[2].rpartition(".")[2], row[4]) for row in server.log()[before:]]
        assert sorted(later) == [("commitmeta", "404"), ("config", "200"), ("summary", "304")]


@pytest.mark.parametrize("writer", ["ostree", "flatpak"])
def test_signed_summaries(tmp_path: Path, target: Target, keys: Keys, writer: str) -> None:
    repo = make_repo(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree", files=1)
    name = "summary.idx" if writer == "flatpak" else "summary"
    refs = [f"app/org.a.A{number}/x86_64/stable" for number in range(3)]

    def update(ref: str, *signers: str) -> None:
        commit(repo, tree, branch=ref)
        home = [f"--gpg-homedir={keys.gpg.home}"] if signers else []
        words = ["summary", "-u", f"--repo={repo}"] if writer == "ostree" else ["build-update-repo", str(repo)]
        run(require(writer), *words, *home, *(f"--gpg-sign={signer}" for signer in signers))

    def refused(ref: str, status: int = 5) -> str:
        names = target.names()
        said: str = target.ostree("pull", "o", ref, status=status).stderr
        assert target.names() == names
        assert f"{server.url}/{name}" in said
        return said

    (tmp_path / "key.gpg").write_bytes(keys.gpg.export(keys.good))
    update(refs[0], keys.good)
    with serve(repo) as server:
        words = ("--set=gpg-verify-summary=true", f"--gpg-import={tmp_path / 'key.gpg'}")
        remote(target, server.url, *words)
        target.ostree("pull", "o", refs[0])
        assert refs[0] in {row["name"] for row in target.json("remote", "refs", "o")["refs"]}
        stale = {path: path.read_bytes() for path in repo.glob("summary*.sig")}
        assert stale

        update(refs[1], keys.foreign)
        assert "not among the trusted ones" in refused(refs[1])
        update(refs[1], keys.foreign, keys.good)
        target.ostree("pull", "o", refs[1])

        if writer == "flatpak":  # beside what is read first, such as the new index, a cache may have the old signature
            for path, data in stale.items():
                path.write_bytes(data)
            assert refs[1] in target.ostree("remote", "refs", "o", "--subset=x86_64").stdout

        update(refs[2], keys.good)
        signed = [*repo.glob("summary*.sig"), *repo.glob("summaries/*.sig")]
        for path in signed:
            path.unlink()
        assert "no GPG signature" in refused(refs[2])
        for path, data in stale.items():
            path.write_bytes(data)
        assert "other bytes" in refused(refs[2])
        assert "other bytes" in refused(refs[0])
        for path in stale:
            path.write_bytes(b"rubbish!")
        told = refused(refs[2])
        assert f"{server.url}/{name}.sig: malformed detached metadata: " in told
        assert told.count(server.url) == 1
        assert "(the source is damaged or altered on its way; try again later" in told
        remote(target, server.url)
        target.ostree("pull", "o", refs[2])
        (repo / name).unlink()
        remote(target, server.url, *words)
        if writer == "ostree":
            assert "signed one" in target.ostree("pull", "o", refs[2], status=3).stderr


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_repository_that_goes_back_to_an_older_state(
    tmp_path: Path, target: Target, keys: Keys, is_signed: bool
) -> None:
    repo = make_repo(tmp_path / "repo")
    tree = make_tree(tmp_path / "tree", files=1)
    refs = ["app/org.a.A/x86_64/stable", "app/org.a.A/aarch64/stable"]

    def update(subject: str, date: int) -> None:
        for ref in refs:
            commit(repo, tree, branch=ref, subject=subject)
        signed = (f"--gpg-homedir={keys.gpg.home}", f"--gpg-sign={keys.good}") if is_signed else ()
        run(require("flatpak"), "build-update-repo", *signed, repo)
        os.utime(repo / "summary.idx", (date, date))

    update("old", 1_700_000_000)
    shutil.copytree(repo, tmp_path / "backup", symlinks=True)
    update("new", 1_700_001_000)
    (tmp_path / "key.gpg").write_bytes(keys.gpg.export(keys.good))
    # As web servers answer which take any file that is not newer for the one that the client has.
    with nginx(tmp_path / "nginx", repo, settings="etag off; if_modified_since before;") as server:
        words = ("--set=gpg-verify-summary=true", f"--gpg-import={tmp_path / 'key.gpg'}") if is_signed else ()
        remote(target, server.url, *words)
        target.ostree("remote", "refs", "o", "--subset=aarch64")
        shutil.rmtree(repo)
        (tmp_path / "backup").rename(repo)
        target.ostree("pull", "o", refs[0])
        assert target.ostree("inspect", f"o:{refs[0]}").stdout.splitlines()[-1].strip() == "old"
        answers = [row[4] for row in server.log() if "/summary.idx " in row[3]]
        assert answers == ["200", "304", "200"]


def test_deltas_are_found_by_the_summary_index(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    commit(repo, make_tree(tmp_path / "tree", files=20), branch="app/org.a.A/x86_64/stable")
    run(require("flatpak"), "build-update-repo", "--generate-static-deltas", repo)
    with serve(repo) as server:
        remote(target, server.url)
        pulled = target.json("pull", "o", "app/org.a.A/x86_64/stable")
        assert pulled["delta_parts"] >= 1
        assert server.count("*.filez") == server.count("/summary") == 0


def test_deltas_that_the_summary_does_not_list(tmp_path: Path, target: Target) -> None:
    repo = make_repo(tmp_path / "repo")
    run(require("ostree"), "config", f"--repo={repo}", "set", "core.no-deltas-in-summary", "true")
    commit(repo, make_tree(tmp_path / "tree", files=20))
    run("ostree", "static-delta", "generate", f"--repo={repo}", "--empty", BRANCH)
    update_summary(repo)
    with serve(repo) as server:
        assert target.json("pull", server.url, BRANCH)["delta_parts"] >= 1
        assert server.count("*.filez") == 0


def test_a_summary_that_export_signs(tmp_path: Path, target: Target, keys: Keys) -> None:
    commit(make_repo(tmp_path / "made"), make_tree(tmp_path / "tree", files=1))
    target.ostree("pull-local", tmp_path / "made", BRANCH)
    home = ("--gpg-homedir", keys.gpg.home, "--gpg-sign", keys.good)
    target.ostree("export", BRANCH, tmp_path / "out", *home)
    (tmp_path / "key.gpg").write_bytes(keys.gpg.export(keys.good))
    other, theirs = Target(tmp_path / "other"), make_repo(tmp_path / "theirs")
    with serve(tmp_path / "out") as server:
        words = ("--no-gpg-verify", "--set=gpg-verify-summary=true", f"--gpg-import={tmp_path / 'key.gpg'}")
        other.ostree("remote", "add", "o", server.url, *words)
        other.ostree("pull", "o", BRANCH)
        run(require("ostree"), "remote", "add", f"--repo={theirs}", *words, "o", server.url)
        run("ostree", "pull", f"--repo={theirs}", "o", BRANCH)


def test_a_signed_summary_is_whole_all_the_time(
    tmp_path: Path, target: Target, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(make_repo(tmp_path / "made"), make_tree(tmp_path / "tree", files=1))
    target.ostree("pull-local", tmp_path / "made", BRANCH)
    monkeypatch.setenv("GNUPGHOME", str(keys.gpg.home))
    out = tmp_path / "out"
    target.ostree("export", BRANCH, out, f"--gpg-sign={keys.good}")
    (tmp_path / "key.gpg").write_bytes(keys.gpg.export(keys.good))
    theirs = make_repo(tmp_path / "theirs")
    words = ("--no-gpg-verify", "--set=gpg-verify-summary=true", f"--gpg-import={tmp_path / 'key.gpg'}")
    run(require("ostree"), "remote", "add", f"--repo={theirs}", *words, "o", out.as_uri())
    # A signature that cannot be made costs nobody the summary that is there.
    target.ostree("export", BRANCH, out, "--reference=new", "--gpg-sign=nobody@example.org", status=1)
    run("ostree", "pull", f"--repo={theirs}", "o", BRANCH)
    # Nor does it take away the one that is there until the new ones can take their places, side by side.
    log = tmp_path / "log"
    argv = [CFSCTL, "--repo", target.path, "ostree", "export", BRANCH, out, f"--gpg-sign={keys.good}"]
    run(*recorder(log, children=True), *argv)
    changed = [paths(call, out)[-1:] for call in read(log) if call.name.startswith(("unlink", "rename"))]
    assert [place for place in changed if place and place[0].startswith("summary")] == [["summary"], ["summary.sig"]]
    run("ostree", "pull", f"--repo={theirs}", "o", BRANCH)
