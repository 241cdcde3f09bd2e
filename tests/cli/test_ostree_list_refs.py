"""Listing what can be pulled: from a summary over HTTP, from a directory with and without one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from composefs_ostree.formats import gvariant
from support.commands import cfsctl, run
from support.ostree_pull import extensions  # noqa: F401  a fixture
from support.ostree_repo import commit, make_repo, make_tree, update_summary
from support.peers import require
from support.server import Fault, serve

pytestmark = pytest.mark.usefixtures("extensions")


def list_refs(*arguments: str | Path, **options: Any) -> Any:
    return cfsctl("ostree", "list-refs", *arguments, **options)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    repo = make_repo(tmp_path / "source")
    for number, branch in enumerate(["os/b", "os/a", "z"]):
        commit(repo, make_tree(tmp_path / f"tree-{number}", number, files=1), branch=branch)
    return repo


def expected(repo: Path) -> list[dict[str, str]]:
    names = run(require("ostree"), f"--repo={repo}", "refs").stdout.split()
    return [
        {"name": name, "commit": run(require("ostree"), f"--repo={repo}", "rev-parse", name).stdout.strip()}
        for name in sorted(names)
    ]


def test_the_same_refs_by_every_way(source: Path) -> None:
    refs = expected(source)
    assert json.loads(list_refs("--path", source, "--json").stdout) == {"refs": refs}
    update_summary(source)
    with serve(source) as server:
        assert json.loads(list_refs(server.url, "--json").stdout) == {"refs": refs}
        lines = list_refs(server.url).stdout
    assert lines == list_refs("--path", source).stdout
    assert [line.split() for line in lines.splitlines()] == [
        ["REF", "COMMIT"],
        *([row["name"], row["commit"]] for row in refs),
    ]


def test_a_directory_is_found_from_where_the_user_is(source: Path) -> None:
    assert "os/a" in list_refs("--path", source.name, cwd=source.parent).stdout


def test_the_summary_counts_where_there_is_one_as_for_a_pull(source: Path) -> None:
    update_summary(source)
    run("ostree", f"--repo={source}", "refs", "--create=later", "z")
    assert "later" not in list_refs("--path", source).stdout
    (source / "summary").unlink()
    assert "later" in list_refs("--path", source).stdout


def test_refs_of_parents_and_of_other_modes(tmp_path: Path, source: Path) -> None:
    child = make_repo(tmp_path / "child", "bare-user")
    run("ostree", f"--repo={child}", "pull-local", source, "os/a")
    with open(child / "config", "a") as config:
        config.write(f"parent={source}\n")
    (child / "refs" / "heads" / ".tmp").write_text("rubbish")
    allowed = {**os.environ, "COMPOSEFS_EXT_READ": str(source)}  # nobody but the repository names its parent
    assert json.loads(list_refs("--path", child, "--json", env=allowed).stdout)["refs"] == expected(source)


def test_aliases_are_refs_and_what_is_no_file_is_named(source: Path) -> None:
    run(require("ostree"), f"--repo={source}", "refs", "--alias", "--create=alias", "z")
    heads = source / "refs" / "heads"
    assert (heads / "alias").is_symlink()
    refs = expected(source)
    (heads / "endless").symlink_to(heads, target_is_directory=True)
    assert json.loads(list_refs("--path", source, "--json").stdout)["refs"] == refs
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("loop")):
        make(heads / "loop")
        refused = list_refs("--path", source, status=5)
        assert str(heads / "loop") in refused.stderr
        (heads / "loop").unlink()


def test_no_refs(tmp_path: Path) -> None:
    empty = make_repo(tmp_path / "empty")
    assert list_refs("--path", empty).stdout == "No refs found\n"
    assert json.loads(list_refs("--path", empty, "--json").stdout) == {"refs": []}
    update_summary(empty)
    with serve(empty) as server:
        assert list_refs(server.url).stdout == "No refs found\n"


def test_where_nothing_tells_the_refs(tmp_path: Path, source: Path) -> None:
    with serve(source) as server:
        refused = list_refs(server.url, status=3)
        assert "no summary" in refused.stderr
        assert "ostree summary" in refused.stderr
    assert "not an ostree repository" in list_refs("--path", tmp_path, status=3).stderr
    assert "either a URL or --path" in list_refs(status=2).stderr
    assert "either a URL or --path" in list_refs("http://localhost/", "--path", source, status=2).stderr


def test_where_no_repository_is_a_remote_is_one_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPOSEFS_OSTREE_REMOTES", str(tmp_path))
    told = list_refs("o", status=3).stderr
    assert "ostree has no remote 'o' on this machine (cfsctl ostree remote refs o lists those of a remote of" in told


def test_rubbish_is_refused(source: Path) -> None:
    update_summary(source)
    good = (source / "summary").read_bytes()
    row = ("a", (1, bytes(32), {}))
    bad = [
        b"<html>",
        good[:-1],
        *(
            gvariant.encode("(a(s(taya{sv}))a{sv})", (refs, {}))
            for refs in (
                [row, row],
                [("../a", row[1])],
                [("a\x1b[2J", row[1])],
                [("a", (1, bytes(31), {}))],
            )
        ),
    ]
    with serve(source) as server:
        for body in bad:
            server.fault("/summary", Fault(body=body))
            refused = list_refs(server.url, status=5)
            assert f"{server.url}/summary" in refused.stderr
            assert "\x1b" not in refused.stderr
            server.forgive()
    (source / "summary").unlink()
    (source / "refs" / "heads" / "os" / "a").write_text("x")
    assert str(source / "refs" / "heads" / "os" / "a") in list_refs("--path", source, status=5).stderr
