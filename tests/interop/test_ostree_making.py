"""Commits made by us and repositories exported by us, held against the ostree of the distribution, both ways."""

from __future__ import annotations

import json
import os
import shutil
import stat
import struct
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from composefs_ostree.formats import gvariant
from support.commands import run
from support.made_repo import OPTIONS, make_system, odd_tree
from support.ostree_making import (
    BRANCH,
    MODES,
    commit_both,
    facts,
    ostree,
)
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo
from support.peers import require
from support.server import serve
from support.vectors import DATA

pytestmark = pytest.mark.usefixtures("extensions")

ROWS: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["ostree"]


@pytest.mark.root
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"seed{row['seed']}")
def test_vectors_committed_by_us_have_the_recorded_ids(tmp_path: Path, row: dict[str, Any]) -> None:
    tree = tmp_path / "tree"
    run(sys.executable, DATA / "make_tree.py", str(row["seed"]), tree, str(row["entries"]))
    options = ("--timestamp=@1700000000", "--subject=vector", "--parent=none", "--branch=vector/main")
    for key in ("sha256-v1", "sha512-v1"):
        target = Target(tmp_path / key, key[:6])
        made = target.json("commit", f"--tree=dir={tree}", "--owner-uid=0", "--owner-gid=0", *options)
        assert (made["commit"], made["image"]) == (row["commit"], row[key])
        # What was committed is committed again, from its image and from its dump, with the same id.
        assert target.json("commit", made["image"], *options)["commit"] == row["commit"]
        (tmp_path / "dump").write_text(target.ostree("dump", "vector/main").stdout)
        again = target.json("commit", "--from-dump", tmp_path / "dump", *options)
        assert (again["commit"], again["verity"]) == (row["commit"], made["verity"])


@pytest.mark.root
def test_everything_odd_has_the_same_id_and_comes_back_equal(tmp_path: Path) -> None:
    tree = odd_tree(tmp_path / "tree")
    target, theirs, ours, expected = commit_both(tmp_path, f"dir={tree}", "--timestamp=@1", "-s", "odd")
    assert ours == expected
    before = facts(tree)
    for mode in MODES:
        exported = tmp_path / f"exported-{mode}"
        target.ostree("export", BRANCH, exported, "--mode", mode)
        assert ostree(exported, "rev-parse", BRANCH).stdout.strip() == ours
        assert "no errors found" in ostree(exported, "fsck").stdout
        checked_out = tmp_path / f"checkout-{mode}"
        source = exported
        if mode == "bare-user":  # which checks out without owners; so by way of a bare one
            source = make_repo(tmp_path / "by-way-of", "bare")
            ostree(source, "pull-local", "--untrusted", exported, BRANCH)
        ostree(source, "checkout", BRANCH, checked_out)
        assert facts(checked_out) == before, mode
    # The same objects as ostree makes, file by file, but for the deflate streams.
    listings = [ostree(repo, "ls", "-RCX", BRANCH).stdout for repo in (tmp_path / "exported-archive", theirs)]
    assert listings[0] == listings[1]


@pytest.mark.root
@pytest.mark.parametrize("mode", MODES)
def test_bare_objects_are_as_ostree_lays_them_out(tmp_path: Path, mode: str) -> None:
    tree = odd_tree(tmp_path / "tree")
    target, theirs, _, _ = commit_both(tmp_path, f"dir={tree}", "--timestamp=@1")
    ours, copied = tmp_path / "exported", make_repo(tmp_path / "copied", mode)
    target.ostree("export", BRANCH, ours, "--mode", mode)
    ostree(copied, "pull-local", theirs, BRANCH)
    seen = []
    for repo in (ours, copied):
        objects = facts(repo / "objects")
        times = {
            str(path.relative_to(repo)): path.lstat().st_mtime
            for path in (repo / "objects").rglob("*.file")
            if not path.is_symlink()
        }
        assert set(times.values()) <= {0}
        if mode == "archive":
            objects = {name: fact[:4] for name, fact in objects.items()}
        seen.append(objects)
    assert seen[0] == seen[1]


def test_what_we_export_is_pulled_over_http_by_both_and_keeps_its_id(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    target = Target(tmp_path / "ours")
    made = target.json("commit", f"--tree=dir={tree}", "-b", BRANCH, *OPTIONS, "--add-metadata-string=version=1.0")
    exported = tmp_path / "exported"
    assert made["commit"] in target.ostree("export", BRANCH, exported, umask=0o077).stdout
    theirs = make_repo(tmp_path / "theirs", "bare-user")
    with serve(exported) as server:
        back = Target(tmp_path / "back").json("pull", server.url, BRANCH)
        assert (back["commit"], back["verity"], back["image"]) == (made["commit"], made["verity"], made["image"])
        ostree(theirs, "remote", "add", "--no-gpg-verify", "origin", server.url)
        ostree(theirs, "pull", "origin", BRANCH)
        assert f"origin:{BRANCH}" in ostree(theirs, "refs").stdout
        summary = ostree(theirs, "remote", "summary", "origin").stdout
        assert f"* {BRANCH}" in summary
        assert "Version (ostree.commit.version): 1.0" in summary
    assert "no errors found" in ostree(theirs, "fsck").stdout
    assert "Version: 1.0" in ostree(theirs, "log", f"origin:{BRANCH}").stdout
    # For a web server of another user, whatever the umask.
    for path in exported.rglob("*"):
        if path.parts[-1] != ".lock" and not path.is_symlink():
            assert path.stat().st_mode & (0o005 if path.is_dir() else 0o004), path


_ENTRIES = [(0x01, 7, -1), (0x02, 7, 1000), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1)]
ACL = struct.pack("<I", 2) + b"".join([struct.pack("<HHi", *entry) for entry in _ENTRIES])


@pytest.mark.root
def test_attributes_that_a_directory_gives_to_what_is_made_in_it(tmp_path: Path) -> None:
    """They would make other objects of the files of a bare repository.  NFS v4 gives one to every file."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    target = Target(tmp_path / "target")
    target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", BRANCH)
    for mode in ("bare", "bare-user"):
        (tmp_path / mode).mkdir()
        os.setxattr(tmp_path / mode, "system.posix_acl_default", ACL)
    refused = target.ostree("export", BRANCH, tmp_path / "bare", "--mode=bare", status=9).stderr
    assert "has given it another attribute, system.posix_acl_access (export to a repository of the mode " in refused
    target.ostree("export", BRANCH, tmp_path / "bare-user", "--mode=bare-user")
    assert "no errors found" in ostree(tmp_path / "bare-user", "fsck").stdout


@pytest.mark.root
def test_no_bare_repository_keeps_an_acl_that_does_not_go_with_its_mode(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    program = tmp_path / "tree/program"
    program.write_text("#!/bin/sh\n")
    os.setxattr(program, "system.posix_acl_access", ACL)
    target = Target(tmp_path / "target")
    as_it_is = target.json("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", BRANCH)["commit"]
    target.ostree("export", BRANCH, tmp_path / "bare", "--mode=bare")
    assert "no errors found" in ostree(tmp_path / "bare", "fsck").stdout
    target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", "-b", BRANCH, "--mode-ro-executables")
    refused = target.ostree("export", BRANCH, tmp_path / "bare", "--mode=bare", status=9).stderr
    assert "its ACL does not go with its mode 0555" in refused
    assert "archive or bare-user" in refused
    assert ostree(tmp_path / "bare", "rev-parse", BRANCH).stdout.strip() == as_it_is
    for mode in ("archive", "bare-user"):
        target.ostree("export", BRANCH, tmp_path / mode, "--mode", mode)
        assert "no errors found" in ostree(tmp_path / mode, "fsck").stdout


def test_bare_user_only_takes_canonical_commits_alone(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    (tree / "usr/bin/setuid").write_text("x")
    (tree / "usr/bin/setuid").chmod(0o4777)
    (tree / "var").chmod(0o1777)
    options = ("--canonical-permissions", "--no-xattrs", "--timestamp=@1")
    target, theirs, ours, expected = commit_both(tmp_path, f"dir={tree}", *options)
    assert ours == expected
    exported = tmp_path / "exported"
    target.ostree("export", BRANCH, exported, "--mode=bare-user-only")
    assert "no errors found" in ostree(exported, "fsck").stdout
    copied = make_repo(tmp_path / "copied", "bare-user-only")
    ostree(copied, "pull-local", theirs, BRANCH)
    assert facts(exported / "objects") == facts(copied / "objects")
    back = Target(tmp_path / "back").json("pull-local", exported, BRANCH)
    assert back["commit"] == ours
    target.ostree("commit", f"--tree=dir={tree}", "-b", "other", "--owner-uid=5")
    failed = target.ostree("export", "other", exported, status=9)
    assert "bare-user-only keeps neither owners" in failed.stderr
    assert "--canonical-permissions" in failed.stderr
    assert ostree(exported, "refs").stdout.split() == [BRANCH]


def test_no_file_system_keeps_the_modes_that_ostree_gives_symlinks_of_archives(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        for name, kind, mode in (("./", tarfile.DIRTYPE, 0o755), ("./link", tarfile.SYMTYPE, 0o640)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.linkname = kind, mode, "to" if kind == tarfile.SYMTYPE else ""
            archive.addfile(entry)
    theirs, target = make_repo(tmp_path / "theirs"), Target(tmp_path / "target")
    made = ostree(theirs, "commit", f"--branch={BRANCH}", f"--tree=tar={tmp_path}/archive.tar").stdout.strip()
    assert target.json("pull-local", theirs, BRANCH)["commit"] == made
    for mode in ("archive", "bare-user"):
        target.ostree("export", BRANCH, tmp_path / mode, f"--mode={mode}")
        assert "no errors found" in ostree(tmp_path / mode, "fsck").stdout
        assert Target(tmp_path / f"from {mode}").json("pull-local", tmp_path / mode, BRANCH)["commit"] == made
    for mode, says in (("bare", "it has a symlink's mode of 0640"), ("bare-user-only", "of symlinks 0777 alone")):
        assert says in target.ostree("export", BRANCH, tmp_path / mode, f"--mode={mode}", status=9).stderr
        assert not (tmp_path / mode).exists()


def test_a_directory_without_files(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    target, _, ours, expected = commit_both(tmp_path, f"dir={tmp_path / 'tree'}", "--timestamp=@1")
    assert ours == expected
    exported = tmp_path / "exported"
    target.ostree("export", BRANCH, exported)
    assert "no errors found" in ostree(exported, "fsck").stdout
    assert Target(tmp_path / "back").json("pull-local", exported, BRANCH)["commit"] == ours


def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(100):
        (tree / f"d{number}").mkdir(parents=True)
        for file in range(1000):
            (tree / f"d{number}" / f"f{file}").write_bytes(b"%d" % (file % 200) * (1 + 40 * (file % 3)))
    options = ("--timestamp=@1", "--owner-uid=0", "--owner-gid=0")
    target, _, ours, expected = commit_both(tmp_path, f"dir={tree}", *options)
    assert ours == expected
    target.ostree("export", BRANCH, tmp_path / "exported", "--mode=bare-user")
    assert "no errors found" in ostree(tmp_path / "exported", "fsck").stdout


def test_a_sparse_file_of_four_gibibytes_stays_sparse(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate((4 << 30) + 5)
        file.seek(2 << 30)
        file.write(b"in the middle")
    target = Target(tmp_path / "ours")
    made = target.json("commit", f"--tree=dir={tree}", "-b", BRANCH, *OPTIONS)
    theirs = make_repo(tmp_path / "theirs")
    assert ostree(theirs, "commit", f"--tree=dir={tree}", "-b", BRANCH, *OPTIONS).stdout.strip() == made["commit"]
    [large] = [
        path for path in (target.path / "objects").rglob("*") if path.is_file() and path.stat().st_size > 1 << 32
    ]
    assert large.stat().st_blocks < 10_000
    # From an archive with a sparse member too.
    run("tar", "--sparse", "--format=gnu", "-C", tree, "-cf", tmp_path / "sparse.tar", ".")
    assert (tmp_path / "sparse.tar").stat().st_size < 1 << 20
    again = target.json("commit", f"--tree=tar={tmp_path / 'sparse.tar'}", "-b", BRANCH, "--parent=none", *OPTIONS)
    assert again["commit"] == made["commit"]
    target.ostree("export", BRANCH, tmp_path / "exported", "--mode=bare-user")
    [large] = [path for path in (tmp_path / "exported").rglob("*.file") if path.stat().st_size > 1 << 32]
    assert large.stat().st_blocks < 10_000
    assert "no errors found" in ostree(tmp_path / "exported", "fsck").stdout


@pytest.mark.root
def test_what_ostree_refuses_is_refused(tmp_path: Path) -> None:
    theirs = make_repo(tmp_path / "theirs")
    target = Target(tmp_path / "ours")
    makers: dict[str, tuple[Any, str]] = {
        "a pipe": (os.mkfifo, "device, a pipe or a socket"),
        "a device": (lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3)), "device, a pipe or a socket"),
        os.fsdecode(b"not \xff UTF-8"): (lambda path: path.write_text("x"), "is not UTF-8"),
        "points": (lambda path: os.symlink(b"\xff", os.fsencode(path)), "target is not UTF-8"),
    }
    for name, (make, message) in makers.items():
        tree = tmp_path / "tree"
        tree.mkdir()
        (tree / "file").write_text("file")
        make(tree / name)
        # Of a target that is no text ostree makes an object that nobody can read.
        ostree(theirs, "commit", "-b", "x", f"--tree=dir={tree}", status=0 if name == "points" else 1)
        failed = target.ostree("commit", "-b", "x", f"--tree=dir={tree}", status=None)
        assert failed.returncode in (5, 9)
        assert message in failed.stderr
        assert ascii(name)[1:-1].replace("\\udcff", "\\xff") in failed.stderr
        shutil.rmtree(tree)
    assert target.names() == {}
    assert target.left_over() == []


def test_a_summary_is_the_one_that_ostree_writes(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    target = Target(tmp_path / "ours")
    exported = tmp_path / "exported"
    for number, branch in enumerate(("a", "b/c", "ä".encode().hex())):
        (tree / "number").write_text(str(number) * 1000)
        target.ostree("commit", "-b", branch, f"--tree=dir={tree}", f"--add-metadata-string=version={number}", *OPTIONS)
        target.ostree("export", branch, exported)
    first, second = (target.json("inspect", ref)["commit"] for ref in ("a", "b/c"))
    ostree(exported, "static-delta", "generate", "--empty", f"--to={first}")
    ostree(exported, "static-delta", "generate", f"--from={first}", f"--to={second}")
    target.ostree("export", "a", exported)
    ours = gvariant.decode("(a(s(taya{sv}))a{sv})", (exported / "summary").read_bytes())
    ostree(exported, "summary", "--update")
    theirs = gvariant.decode("(a(s(taya{sv}))a{sv})", (exported / "summary").read_bytes())
    assert ours[0] == theirs[0]
    assert set(ours[1]["ostree.static-deltas"].value) == {first, f"{first}-{second}"}
    for summary in (ours, theirs):
        summary[1].pop("ostree.summary.last-modified")
    assert ours[1] == theirs[1]
    # What is not there any more is not listed; a summary that is to be left alone is.
    shutil.rmtree(exported / "deltas")
    target.ostree("export", "a", exported, "--no-summary")
    assert b"ostree.static-deltas" in (exported / "summary").read_bytes()
    target.ostree("export", "a", exported)
    assert b"ostree.static-deltas" not in (exported / "summary").read_bytes()


def test_aliases_are_listed_as_the_refs_that_they_are_of(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    target = Target(tmp_path / "ours")
    exported = tmp_path / "exported"
    made = target.json(
        "commit", "-b", "os/42", f"--tree=dir={tree}", "--bind-ref=stable", "--bind-ref=a/b/now", *OPTIONS
    )
    target.ostree("export", "os/42", exported)
    ostree(exported, "refs", "--alias", "--create=stable", "os/42")
    ostree(exported, "refs", "--alias", "--create=a/b/now", "stable")
    target.ostree("export", "os/42", exported)
    ours = gvariant.decode("(a(s(taya{sv}))a{sv})", (exported / "summary").read_bytes())
    ostree(exported, "summary", "--update")
    theirs = gvariant.decode("(a(s(taya{sv}))a{sv})", (exported / "summary").read_bytes())
    assert ours[0] == theirs[0]
    assert [name for name, _ in ours[0]] == ["a/b/now", "os/42", "stable"]
    # What leads to no ref of this repository is none; of some of these ostree makes no summary.
    (tmp_path / "outside").write_text((exported / "refs/heads/os/42").read_text())
    nowhere = {"gone": "os/41", "out": tmp_path / "outside", "up": "../../../outside", "folder": "os", "round": "round"}
    for name, place in nowhere.items():
        (exported / "refs/heads" / name).symlink_to(place)
    target.ostree("export", "os/42", exported)
    assert gvariant.decode("(a(s(taya{sv}))a{sv})", (exported / "summary").read_bytes())[0] == ours[0]
    # Both pull by the alias.
    back, peer = Target(tmp_path / "back"), make_repo(tmp_path / "peer")
    with serve(exported) as server:
        assert back.json("pull", server.url, "a/b/now")["commit"] == made["commit"]
        ostree(peer, "remote", "add", "--no-gpg-verify", "o", server.url)
        ostree(peer, "pull", "o", "a/b/now")


def test_a_repository_of_a_collection(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    run(require("ostree"), "init", f"--repo={theirs}", "--mode=archive", "--collection-id=org.example.Os")
    tree = make_system(tmp_path / "tree")
    target = Target(tmp_path / "ours")
    target.ostree("commit", "-b", "a", f"--tree=dir={tree}", *OPTIONS)
    target.ostree("export", "a", theirs)
    mirrored = (theirs / "refs/heads/a").read_text()
    (theirs / "refs/mirrors/org.example.Other").mkdir(parents=True)
    (theirs / "refs/mirrors/org.example.Other/b").write_text(mirrored)
    (theirs / "refs/mirrors/org.example.File").touch()
    foreign = os.fsencode(theirs) + b"/refs/mirrors/org.\xff"  # by which ostree is killed
    os.mkdir(foreign)
    with open(foreign + b"/b", "w") as file:
        file.write(mirrored)
    target.ostree("export", "a", theirs)
    summary = ostree(theirs, "summary", "--view").stdout
    assert "org.example.Os" in summary
    assert "org.example.Other" in summary
