"""Bad sources: one line names the object and the remedy, nothing is visible, and the next good pull succeeds."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.ostree_forge import Forge
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree, update_summary
from support.server import Fault, Server, serve

pytestmark = pytest.mark.usefixtures("extensions")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made")
    repo = make_repo(path / "source")
    commit(repo, make_tree(path / "tree", files=8))
    return repo


@pytest.fixture
def source(made: Path, tmp_path: Path) -> Path:
    """An archive repository with one commit."""
    return shutil.copytree(made, tmp_path / "source")


def refuse(target: Target, server: Server, status: int, named: str, **options: Any) -> str:
    """Pull, which must fail with one line that names an object; then pull without faults, which must succeed.

    The ``options`` are those of running the first.
    """
    refused = target.ostree("pull", server.url, BRANCH, status=status, **options)
    errors = [line for line in refused.stderr.splitlines() if line.startswith("cfsctl: ")]
    assert len(errors) == 1, refused.stderr
    assert named in errors[0], errors
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""
    assert target.names() == {}
    assert target.left_over() == []
    server.forgive()
    target.ostree("pull", server.url, BRANCH)
    return errors[0]


def an_object(source: Path, kind: str, smallest: int = 0) -> Path:
    """An object of the commit with at least this many bytes in its file."""
    return next(
        path for path in sorted((source / "objects").rglob(f"*.{kind}")) if path.stat().st_size >= smallest
    ).relative_to(source)


KINDS = ["commit", "dirtree", "dirmeta", "filez"]
CHANGES = ["empty", "short", "long", "other"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_is_missing(source: Path, target: Target, kind: str) -> None:
    path = an_object(source, kind)
    with serve(source) as server:
        server.fault(f"/{path}", Fault(status=404))
        refused = refuse(target, server, 3, f"{server.url}/{path}")
        assert "not" in refused
        assert "try again later" in refused


PAGES = {
    "long": Fault(status=404, body=b"<p>not found" * 4_000_000),
    "cut": Fault(status=404, body=b"zz", headers=(("Transfer-Encoding", "chunked"),)),
    "garbled": Fault(status=410, body=b"<p>gone", headers=(("Content-Encoding", "gzip"),)),
}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_says_that_there_is_nothing(source: Path, target: Target, page: str) -> None:
    """What may be absent is, and what must be there is named, whatever the server says about it at what length."""
    with serve(source) as server:
        server.fault("*.commitmeta", PAGES[page])
        server.fault("/summary*", PAGES[page])
        target.ostree("pull", server.url, BRANCH)
        assert server.count("*.commitmeta") == 1
        path = an_object(source, "dirtree")
        server.fault(f"/{path}", PAGES[page])
        other = Target(target.path.with_name("other"))
        assert "not found" in refuse(other, server, 3, f"{server.url}/{path}")


# Metadata have no parts before their digest is known; content has a size, a header and a stream.
@pytest.mark.parametrize(
    ("kind", "position"), [("commit", 9), ("dirtree", 0), ("dirmeta", -1), ("filez", 0), ("filez", 9), ("filez", -1)]
)
def test_an_object_is_altered(source: Path, target: Target, kind: str, position: int) -> None:
    path = an_object(source, kind)
    with serve(source) as server:
        server.fault(f"/{path}", Fault(flip=position))
        assert "mirror" in refuse(target, server, 5, f"{server.url}/{path}")


# A dirtree and a dirmeta come in one way.
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        *(("commit", change) for change in CHANGES),
        *(("filez", change) for change in CHANGES),
        *zip(("dirtree", "dirmeta") * 2, CHANGES, strict=True),
    ],
)
def test_an_object_has_other_bytes(source: Path, target: Target, kind: str, change: str) -> None:
    path = an_object(source, kind)
    good = (source / path).read_bytes()
    body = {"empty": b"", "short": good[: len(good) // 2], "long": good + b"\0", "other": b"<html>" * 20}[change]
    with serve(source) as server:
        server.fault(f"/{path}", Fault(body=body))
        refuse(target, server, 5, f"{server.url}/{path}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_server_hangs_up_in_the_middle(source: Path, target: Target, kind: str) -> None:
    path = an_object(source, kind)
    with serve(source) as server:
        server.fault(f"/{path}", Fault(truncate=True, keep=3))
        assert "3 attempts" in refuse(target, server, 6, f"{server.url}/{path}")


@pytest.mark.parametrize("kind", ["dirtree", "filez"])
def test_the_server_stalls(source: Path, target: Target, kind: str) -> None:
    path = an_object(source, kind)
    soon = os.environ | {"COMPOSEFS_OSTREE_LOW_SPEED_TIME": "1"}
    with serve(source) as server:
        server.fault(f"/{path}", Fault(stall=True, keep=3))
        refuse(target, server, 6, f"{server.url}/{path}", env=soon)


@pytest.mark.parametrize("status", [400, 401, 500, 503])
def test_the_server_refuses(source: Path, target: Target, status: int) -> None:
    path = an_object(source, "filez")
    with serve(source) as server:
        server.fault(f"/{path}", Fault(status=status))
        assert f"HTTP status {status}" in refuse(target, server, 6, f"{server.url}/{path}")
        server.forgive()


@pytest.mark.parametrize(
    ("name", "ref"), [("config", BRANCH), ("summary", BRANCH), ("summary.idx", "app/org.a.A/x86_64/stable")]
)
def test_the_server_calls_unchanged_what_it_never_sent(source: Path, target: Target, name: str, ref: str) -> None:
    with serve(source) as server:
        server.fault(f"/{name}", Fault(status=304))
        refused = target.ostree("pull", server.url, ref, status=6).stderr
        assert f"{server.url}/{name}: HTTP status 304" in refused


@pytest.mark.parametrize("status", [401, 403])
def test_the_server_lets_nobody_in(source: Path, target: Target, status: int) -> None:
    with serve(source) as server:
        server.fault("*", Fault(status=status))
        refused = target.ostree("pull", server.url, BRANCH, status=6).stderr
        assert f"{server.url}/config: access refused (HTTP status {status}) (" in refused
        for setting in ("http-basic-auth-file", "http-bearer-token-file", "netrc"):
            assert setting in refused
        assert server.requests == ["/config"]
        lists = {f"metalink={server.url}/list": "metalink", f"mirrorlist={server.url}/list": "mirrorlist"}
        for url, name in lists.items():
            target.ostree("remote", "add", "--no-gpg-verify", name, url)
            refused = target.ostree("pull", name, BRANCH, status=6).stderr
            assert f"{server.url}/list: access refused (HTTP status {status}) (" in refused


def test_an_object_store_refuses_what_is_not_there(source: Path, target: Target) -> None:
    with serve(source) as server:
        for missing in ("/summary*", "*.commitmeta"):
            server.fault(missing, Fault(status=403))
        assert target.ostree("pull", server.url, BRANCH).stderr == ""
        assert server.count("*.commitmeta") == 1


def test_what_is_refused_for_good_is_not_tried_again(source: Path, target: Target) -> None:
    for status in (403, 404, 410):
        with serve(source) as server:
            server.fault("*.dirtree", Fault(status=status))
            refused = target.ostree("pull", server.url, BRANCH, status=3).stderr
            assert server.count("*.dirtree") == 1
            if status == 403:
                assert (
                    ".dirtree: not there, or access refused (HTTP status 403), although the commit needs i" in refused
                )
                assert "(check that the server may read the file; else the source is incomplete" in refused
            else:
                assert ".dirtree: not found, although the commit needs it (the source is incomplete" in refused
    with serve(source) as server:
        server.fault("*.dirtree", Fault(status=502))
        target.ostree("pull", server.url, BRANCH, status=6)
        assert server.count("*.dirtree") == 3


def test_a_ref_that_is_not_there(source: Path, target: Target) -> None:
    with serve(source) as server:
        server.fault("/summary*", Fault(status=404))
        refused = target.ostree("pull", server.url, "another", status=3).stderr
        assert f"{server.url}/refs/heads/another: the repository has no ref 'another' (check the name; " in refused
        refused = target.ostree("list-refs", server.url, status=3).stderr
        assert f"{server.url}/summary: the repository has no summary, which alone would tell its refs (" in refused
    (source / "summary").unlink(missing_ok=True)
    top = BRANCH.partition("/")[0]  # a directory there
    refused = target.ostree("pull-local", source, top, status=3).stderr
    assert f"{source}/refs/heads/{top}: the repository has no ref '{top}' (check the name; " in refused


def test_a_large_object_is_cut_short(tmp_path: Path, target: Target) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, files=2)
    noise = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(100_000))
    (tree / "large").write_bytes(noise)
    source = make_repo(tmp_path / "source")
    commit(source, tree)
    path = an_object(source, "filez", smallest=len(noise) // 2)
    good = (source / path).read_bytes()
    with serve(source) as server:
        for body in (good[:-1000], good + b"x", good[:2_000_000] + b"\0\0\0\0" + good[2_000_004:]):
            server.fault(f"/{path}", Fault(body=body))
            refused = target.ostree("pull", server.url, BRANCH, status=5)
            assert f"{server.url}/{path}" in refused.stderr
            assert target.left_over() == []
            server.forgive()
        target.ostree("pull", server.url, BRANCH)


def test_a_commit_larger_than_the_summary_says(source: Path, target: Target) -> None:
    update_summary(source)
    path = an_object(source, "commit")
    with serve(source) as server:
        server.fault(f"/{path}", Fault(body=(source / path).read_bytes() + bytes(1_000_000)))
        assert "longer than" in refuse(target, server, 8, f"{server.url}/{path}")


@pytest.mark.parametrize("name", ["/summary", "/refs/heads/test/main", "/config"])
def test_rubbish_where_a_ref_is_looked_up(source: Path, target: Target, name: str) -> None:
    if name == "/summary":
        update_summary(source)
    with serve(source) as server:
        server.fault(name, Fault(body=b"<html>welcome</html>"))
        status = 3 if name == "/config" else 5  # the config of something else: there is no repository
        assert "this is a web page, not " in refuse(target, server, status, server.url + name)


def test_a_web_page_in_the_place_of_whatever_is_not_there(source: Path, target: Target) -> None:
    """As some servers have it: such a file must not be taken for what a commit has beside it."""
    with serve(source) as server:
        server.fault("*.commitmeta", Fault(status=200, body=b"<!DOCTYPE html>\n<title>Shop</title>"))
        told = refuse(target, server, 5, f"{server.url}/objects/")
    assert ".commitmeta: this is a web page, not the file that was asked for (" in told
    assert "by status 404" in told


@pytest.mark.parametrize("name", ["/summary", "/refs/heads/test/main", "/config"])
def test_a_server_that_compresses_what_nobody_asked_it_to(source: Path, target: Target, name: str) -> None:
    if name == "/summary":
        update_summary(source)
    body = gzip.compress((source / name[1:]).read_bytes())
    with serve(source) as server:
        server.fault(name, Fault(body=body, headers=(("Content-Encoding", "gzip"),)))
        told = refuse(target, server, 5, server.url + name)
    assert "compressed by gzip, which nobody has asked for (the files of a repository have to be sent as" in told


def dots(forge: Forge) -> bytes:
    return forge.tree([("..", forge.file())], [])


def slash(forge: Forge) -> bytes:
    return forge.tree([("a/../../x", forge.file())], [])


def empty_name(forge: Forge) -> bytes:
    return forge.tree([], [("", forge.tree([], []))])


def twice(forge: Forge) -> bytes:
    return forge.tree([("a", forge.file()), ("a", forge.file(b"x"))], [])


def file_and_directory(forge: Forge) -> bytes:
    return forge.tree([("a", forge.file())], [("a", forge.tree([], []))])


def unsorted(forge: Forge) -> bytes:
    return forge.tree([("b", forge.file()), ("a", forge.file())], [])


@pytest.mark.parametrize("make", [dots, slash, empty_name, twice, file_and_directory, unsorted])
def test_a_tree_that_no_directory_can_be(tmp_path: Path, target: Target, make: Callable[[Forge], bytes]) -> None:
    forge = Forge(tmp_path / "source")
    root = make(forge)
    forge.commit(forge.tree([], [("usr", root)]))
    name = root.hex()
    for part in ((), ("--subpath=/usr/x",)):
        refused = target.ostree("pull-local", forge.path, BRANCH, *part, status=5)
        assert f"{forge.path}/objects/{name[:2]}/{name[2:]}.dirtree: malformed dirtree" in refused.stderr
        assert target.names() == {}
    forge.commit(forge.tree([("ok", forge.file())], []))
    target.ostree("pull-local", forge.path, BRANCH)
    assert "/ok 5 100644" in target.ostree("dump", BRANCH).stdout


@pytest.mark.parametrize("kind", ["commit", "dirtree"])
def test_of_mirrors_the_one_that_had_the_bad_object_is_named(tmp_path: Path, target: Target, kind: str) -> None:
    forge = Forge(tmp_path / "source")
    bad = dots(forge)
    forge.commit(bad)
    if kind == "commit":
        bad = forge.put("commit", b"rubbish")
        (forge.path / "refs/heads" / BRANCH).write_text(f"{bad.hex()}\n")
    with serve(forge.path) as failing, serve(forge.path) as other:
        (forge.path / "list").write_text(f"{failing.url}\n{other.url}\n")
        failing.fault(f"*.{kind}", Fault(status=503))
        target.ostree("remote", "add", "--no-gpg-verify", "mirrors", f"mirrorlist={other.url}/list")
        refused = target.ostree("pull", "mirrors", BRANCH, "--subpath=/usr/x", status=5).stderr
        name = bad.hex()
        assert f"cfsctl: {other.url}/objects/{name[:2]}/{name[2:]}.{kind}: " in refused
        assert failing.count(f"*.{kind}")


def test_a_small_commit_of_an_endless_tree(tmp_path: Path, target: Target) -> None:
    forge = Forge(tmp_path / "source")
    tree = forge.tree([("x", forge.file())], [])
    for _ in range(40):
        tree = forge.tree([], [("a", tree), ("b", tree)])
    forge.commit(tree)
    refused = target.ostree("pull-local", forge.path, BRANCH, status=8)
    assert "more than 10000000 files" in refused.stderr
    assert target.names() == {}


def test_a_tree_that_names_objects_of_the_wrong_type(tmp_path: Path, target: Target) -> None:
    forge = Forge(tmp_path / "source")
    name = forge.meta.hex()
    forge.commit(forge.tree([], [("meta", forge.meta)]))
    refused = target.ostree("pull-local", forge.path, BRANCH, status=3)
    assert f"objects/{name[:2]}/{name[2:]}.dirtree" in refused.stderr
    forge.put("dirtree", (forge.path / "objects" / name[:2] / f"{name[2:]}.dirmeta").read_bytes())
    refused = target.ostree("pull-local", forge.path, BRANCH, status=5)
    assert "malformed dirtree" in refused.stderr


def test_a_tree_that_names_held_objects_as_what_they_are_not(tmp_path: Path, target: Target) -> None:
    forge = Forge(tmp_path / "source")
    inside = forge.tree([("file", forge.file())], [])
    forge.commit(forge.tree([], [("inside", inside)]))
    target.ostree("pull-local", forge.path, BRANCH)
    for tree, told in (
        (forge.tree([], [("meta", forge.meta)]), f"dirtree {forge.meta.hex()}: malformed dirtree"),
        (forge.tree([("file", inside)], []), f"file {inside.hex()}: malformed file header"),
    ):
        forge.commit(tree)
        said = target.ostree("pull-local", forge.path, BRANCH, status=5).stderr
        assert told in said
        assert f" (tell who made the commit, which names it as a {told.split()[0]})" in said


def test_a_directory_on_the_way_to_a_part_is_another_one(tmp_path: Path, target: Target) -> None:
    """One that could be the commit's, but leads to other files; or there is none."""
    forge = Forge(tmp_path / "source")
    good, bad = (
        forge.tree([], [("usr", forge.tree([("file", forge.file(content))], []))]) for content in (b"good", b"bad")
    )
    forge.commit(good)
    path, other = (f"objects/{name[:2]}/{name[2:]}.dirtree" for name in (good.hex(), bad.hex()))
    with serve(forge.path) as server:
        for fault, status, says in (
            (Fault(body=(forge.path / other).read_bytes()), 5, "its checksum does not match its name"),
            (Fault(status=404), 3, "not found"),
        ):
            server.fault(f"/{path}", fault)
            refused = target.ostree("pull", server.url, BRANCH, "--subpath=/usr", status=status)
            assert f"{server.url}/{path}: {says}" in refused.stderr
            assert target.names() == {}
            server.forgive()
        target.ostree("pull", server.url, BRANCH, "--subpath=/usr")


@pytest.mark.parametrize(("delay", "times"), [("1", 1), ("0.5", 2)])
def test_a_long_wait_for_the_server_is_told(
    source: Path, target: Target, delay: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the second, as the first is too short to be told: the warning does not count attempts."""
    monkeypatch.setenv("COMPOSEFS_OSTREE_RETRY_DELAY", delay)
    with serve(source) as server:
        server.fault("/config", Fault(status=503), times=times)
        done = target.ostree("pull", server.url, BRANCH)
    assert done.stderr == f"warning: {server.url}/config: HTTP status 503; trying again in 1 s\n"
