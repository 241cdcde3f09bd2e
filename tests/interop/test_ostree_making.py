"""Commits made by us and repositories exported by us, held against the ostree of the distribution, both ways."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from composefs_ostree.formats import gvariant
from support.commands import run
from support.made_repo import OPTIONS, make_system, odd_tree
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo
from support.peers import require
from support.server import serve
from support.vectors import DATA

pytestmark = pytest.mark.usefixtures("extensions")

BRANCH = "made/main"
ROWS: list[dict[str, Any]] = json.loads((DATA / "digests.json").read_text())["ostree"]
MODES = ("archive", "bare", "bare-user")


def ostree(repo: Path, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return run(require("ostree"), f"--repo={repo}", *arguments, **options)


def commit_both(
    tmp_path: Path, tree: str, *options: str, env: dict[str, str] | None = None
) -> tuple[Target, Path, str, str]:
    """Commit the same by both; return the repositories and the ids, ours first."""
    target = Target(tmp_path / "ours")
    theirs = make_repo(tmp_path / "theirs")
    arguments = ("commit", f"--branch={BRANCH}", f"--tree={tree}", *options)
    environment = {**os.environ, **(env or {})}
    made = json.loads(target.ostree(*arguments, "--json", env=environment).stdout)["commit"]
    return target, theirs, made, ostree(theirs, *arguments, env=environment).stdout.strip()


def facts(root: Path) -> dict[str, Any]:
    """Everything that a checkout has, by path."""
    found: dict[str, Any] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        names = [name for name in os.listxattr(path, follow_symlinks=False) if name != "security.selinux"]
        xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
        content: Any = None
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = path.readlink()
        owner = (status.st_mode, status.st_uid, status.st_gid)
        found[str(path.relative_to(root))] = (*owner, {k: v for k, v in xattrs.items() if v}, content)
    return found


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
    result = target.json("export", BRANCH, exported)
    assert result["commit"] == made["commit"]
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
    # For a web server of another user.
    for path in exported.rglob("*"):
        if path.parts[-1] != ".lock" and not path.is_symlink():
            assert path.stat().st_mode & (0o005 if path.is_dir() else 0o004), path


@pytest.mark.root
def test_no_bare_repository_keeps_an_acl_that_does_not_go_with_its_mode(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    program = tmp_path / "tree/program"
    program.write_text("#!/bin/sh\n")
    entries = [(0x01, 7, -1), (0x02, 7, 1000), (0x04, 5, -1), (0x10, 7, -1), (0x20, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join([struct.pack("<HHi", *entry) for entry in entries])
    os.setxattr(program, "system.posix_acl_access", acl)
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


@pytest.mark.parametrize(
    "options",
    [
        ("--timestamp=2024-05-06T07:08:09Z", "--subject=s", "--body=more\nlines"),
        ("--timestamp=Mon, 06 May 2024 07:08:09 +0200", "--no-bindings"),
        ("--timestamp=2024-05-06 07:08:09",),
        ("--timestamp=@0", "--bind-ref=zz", "--bind-ref=a/b", "--add-metadata-string=z=1", "--add-metadata-string=a=="),
        ("--timestamp=@0", "--bind-ref=zz", "--bind-ref=a/b", "--bind-ref=zz", f"--bind-ref={BRANCH}"),
        ("--timestamp=@1", "--parent=" + "ab" * 32, "--canonical-permissions"),
        ("--timestamp=@1", "--owner-uid=5", "--owner-gid=2147483647", "--no-xattrs"),
        ("--timestamp=@1", "--add-metadata=b=['x', \"y\"]", "--add-metadata-string=c=d", "--add-metadata=a=uint32 5"),
        ("--timestamp=@1", "--add-metadata=k={'a': <1>, 'b': <(true, @as [])>}", "--add-metadata=m=@ms nothing"),
        ("--timestamp=@1", "--add-metadata=k=[1, 2.5]", "--add-metadata=n=b'bytes\\001'", "--add-metadata=x=-0x10"),
        ("--timestamp=@1", "--add-metadata=k=[byte 0x01, 0xff]", "--add-metadata=t=(int64 -1, 'x', just 3)"),
        ("--timestamp=@1", "--add-metadata=j=@ms 'x'", "--add-metadata=k=@a(mi) [(5,), (nothing,)]"),
    ],
    ids=range(12),
)
def test_options_mean_what_they_mean_to_ostree(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = make_system(tmp_path / "tree")
    target, theirs, ours, expected = commit_both(tmp_path, f"dir={tree}", *options)
    target.ostree("export", BRANCH, tmp_path / "exported")
    assert ostree(tmp_path / "exported", "show", "--raw", BRANCH).stdout == ostree(theirs, "show", "--raw", ours).stdout
    assert ours == expected


def test_values_mean_what_they_mean_to_ostree(tmp_path: Path) -> None:
    """Types that values take from each other, escapes, and what GLib's tokens end at."""
    (tmp_path / "tree").mkdir()
    values = (
        *("[(1, []), (2.5, ['a'])]", "[['/'], [objectpath '/x']]", "[1, just just 2]", "[@mi nothing, 5]"),
        *("{1: 1, 2.0: 2}", "[{1, 'x'}, {uint16 2, 'y'}]", "{1: just 5, 2: nothing}", "{'k', <@u 5>}"),
        *("'\\0\\377\\x41'", "'\\u00e4\\U0001f600\\\n'", "b'\\u00e4\\1018\\377'", "b'ä'", "b'a\\000b'"),
        *("just-1", "uint32+5", "[0b101, -0x1f, 017]", "-0x1e", "double 0x1p3", "[0x10, 2.5]", "-inf", "byte 0xff"),
        *("@a{s(ii)} {}", "@a{s(ii)} {'a': (1, 2)}", "@a{yas} {1: []}", "[@a{sv} {'a': <1>}, {'b': <@as []>}]"),
        *('string"it\'s"', "signature 'a{sv}i'", "\f(handle -1,)"),
    )
    options = [f"--add-metadata=k{number:02}={value}" for number, value in enumerate(values)]
    _, _, ours, expected = commit_both(tmp_path, f"dir={tmp_path / 'tree'}", "--timestamp=@1", *options)
    assert ours == expected


@pytest.mark.parametrize("body", ["", "one line", "one line\n", "a\n\n# grüße\n  b \r\n"], ids=range(4))
def test_a_body_from_a_file_is_what_ostree_takes(tmp_path: Path, body: str) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "body").write_text(body, newline="")
    options = ("-F", str(tmp_path / "body"), "--subject=s", "--timestamp=@1")
    target, _, ours, expected = commit_both(tmp_path, f"dir={tmp_path / 'tree'}", *options)
    assert ours == expected
    assert target.json("inspect", BRANCH)["body"] == body


def test_commits_of_a_collection_are_what_ostree_makes_in_its_repository(tmp_path: Path) -> None:
    tree, collection = make_bootable(tmp_path / "tree", "6.1"), "org.example.Os_2"
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    ostree(theirs, "config", "set", "core.collection-id", collection)
    for options in ((), ("--bind-ref=zz", "--add-metadata-string=version=1"), ("--bootable", "--add-metadata=n=1")):
        words = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--timestamp=@1", "--parent=none", *options)
        ours = target.json(*words, f"--collection-id={collection}")["commit"]
        assert ours == ostree(theirs, *words).stdout.strip()
    # Bound to it, the commit is what a remote of the collection may bring.
    exported = make_repo(tmp_path / "exported")
    ostree(exported, "config", "set", "core.collection-id", collection)
    target.ostree("export", BRANCH, exported)
    with serve(exported) as server:
        puller = make_repo(tmp_path / "puller", "bare-user")
        remote = ("remote", "add", "--no-gpg-verify", f"--collection-id={collection}", "origin", server.url)
        ostree(puller, *remote)
        ostree(puller, "pull", "origin", BRANCH)
        back = Target(tmp_path / "back")
        back.ostree(*remote)
        assert back.json("pull", "origin", BRANCH)["commit"] == ours
    assert "no errors found" in ostree(puller, "fsck").stdout


def test_metadata_of_the_parent_are_kept_as_ostree_keeps_them(tmp_path: Path) -> None:
    tree = make_bootable(tmp_path / "tree", "6.1")
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    first = (
        *("--add-metadata=list=[{'a': <(1, 'x')>}, {}]", "--add-metadata-string=version=1", "--add-metadata=t=true"),
        *("--bootable", "--add-metadata=nested=<<@as []>>", "--add-metadata-string=left=out"),
    )
    kept = [f"--keep-metadata={key}" for key in ("t", "version", "ostree.linux", "nested", "list")]
    changed = ("--add-metadata-string=version=2", "--keep-metadata=list", "--keep-metadata=nested")
    for options in (first, (*kept, "--add-metadata=b=1"), changed, ("--keep-metadata=list", "--bootable")):
        words = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--timestamp=@1", *options)
        ours = target.json(*words)
        assert ours["commit"] == ostree(theirs, *words).stdout.strip()
    # Of another commit than the branch's, and of one whose object alone is here.
    by_id = ("commit", "--orphan", f"--tree=dir={tree}", "--timestamp=@1", f"--parent={ours['parent']}")
    expected = ostree(theirs, *by_id, "--keep-metadata=nested").stdout.strip()
    assert target.json(*by_id, "--keep-metadata=nested")["commit"] == expected
    partial = Target(tmp_path / "partial")
    partial.ostree("pull-local", "--commit-metadata-only", "--depth=1", theirs, BRANCH)
    assert partial.json(*by_id[:-1], f"--parent={ours['commit']}", "--keep-metadata=list")["parent"] == ours["commit"]
    words = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--keep-metadata=left")
    failed = target.ostree(*words, status=2)
    assert f"--keep-metadata left: the parent, commit {ours['commit']}, has no such key" in failed.stderr
    assert "it has list, ostree.bootable, ostree.linux, ostree.ref-binding" in failed.stderr
    assert "Missing metadata key 'left'" in ostree(theirs, *words, status=1).stderr


def test_an_unchanged_tree_is_skipped_where_ostree_skips_it(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    skip = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--skip-if-unchanged")
    answers = []

    def commit(*options: str) -> None:
        made = target.json(*skip, *options)
        assert made["commit"] == ostree(theirs, *skip, *options).stdout.strip()
        assert target.json("inspect", BRANCH)["commit"] == ostree(theirs, "rev-parse", BRANCH).stdout.strip()
        answers.append((made["commit"], made["unchanged"]))

    commit("--timestamp=@1")
    commit("--timestamp=@2", "--subject=other", "--add-metadata-string=version=2")
    tree.chmod(0o700)  # the root's mode is a part of the tree
    commit("--timestamp=@3")
    commit("--timestamp=@4")
    commit("--timestamp=@5", "--owner-uid=5")
    (tree / "etc/os-release").write_text("NAME=Demo\nVERSION=2\n")
    commit("--timestamp=@6", f"--parent={answers[0][0]}")
    commit("--timestamp=@7", "--parent=none")
    assert [unchanged for _, unchanged in answers] == [False, True, False, True, False, False, False]
    # Beside its branch: nothing is set.
    before = target.names()
    made = target.json("commit", "-b", "other", *skip[3:], f"--parent={answers[-1][0]}")
    assert (made["commit"], made["unchanged"], made["ref"]) == (answers[-1][0], True, None)
    assert target.names() == before


CHOSEN: dict[str, tuple[str, str, str]] = {
    # trees, statoverride, skip list
    "added": ("a", "2048 /f\n1023 /d/same\n\n1 /s\n", ""),
    "replaced": ("a b", "=2541 /f\n=448 /d\n=0 /d/same\n=511 /\n", ""),
    "added in the first tree that has it": ("empty a b a", "2048 /f\n", ""),
    "added, and replaced later": ("a a", "73 /f\n=2048 /f\n", ""),
    "added to directories of an archive": ("root.tar d.tar", "146 /d\n18 /\n", ""),
    "left out": ("a", "", "/f\n/s\n"),
    "left out with what is in it": ("a b", "", "/d\n"),
    "left out of the first tree that has it": ("empty a b", "", "/d/same\n/f\n"),
    "left out, with a mode": ("a", "2048 /f\n", "/f\n"),
    "left out of an archive": ("root.tar in-d.tar +", "", "/d/new\n"),
    "left out of an archive, above and below": ("whole.tar", "", "/d\n/d/x\n"),
    "a link that is left out": ("a links.tar", "", "/ln\n"),
}


@pytest.mark.root
@pytest.mark.parametrize("case", CHOSEN)
def test_single_paths_are_changed_and_left_out_as_by_ostree(tmp_path: Path, case: str) -> None:
    make_layers(tmp_path)
    for tree in ("a", "b"):
        (tmp_path / tree / "d/same").write_text(tree)
        (tmp_path / tree / "d/same").chmod(0o700)
    whole = (("./", tarfile.DIRTYPE, 1), ("d/", tarfile.DIRTYPE, 2), ("d/x", tarfile.REGTYPE, 3))
    write_archive(tmp_path / "whole.tar", *whole)
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")
    trees, modes, left_out = CHOSEN[case]
    (tmp_path / "modes").write_text(modes)
    (tmp_path / "left out").write_text(left_out)
    lists = [f"--statoverride={tmp_path / 'modes'}"] if modes else []
    lists += [f"--skip-list={tmp_path / 'left out'}"] if left_out else []
    words = ("commit", "-b", BRANCH, *layers(tmp_path, trees), *lists, "--timestamp=@1", "--parent=none")
    plain = target.json(*words[:3], *layers(tmp_path, trees), *words[-2:])["commit"]
    for options in ((), ("--mode-ro-executables",), ("--canonical-permissions", "--no-xattrs"), ("--owner-uid=3",)):
        if "+" in trees and options and "executables" not in options[0]:
            continue  # owners of directories that it makes are something else to ostree
        made = target.json(*words, *options)["commit"]
        listed = ostree(theirs, "ls", "-R", ostree(theirs, *words, *options).stdout.strip()).stdout
        target.ostree("export", BRANCH, tmp_path / "out")
        assert ostree(tmp_path / "out", "ls", "-R", BRANCH).stdout == listed
        assert (options, made) == (options, ostree(theirs, "rev-parse", BRANCH).stdout.strip())
        assert options or (made == plain) == ("the first tree" in case)
    assert "no errors found" in ostree(tmp_path / "out", "fsck").stdout


def test_executables_are_made_read_only_as_by_ostree(tmp_path: Path) -> None:
    (tree := tmp_path / "tree").mkdir()
    for mode in (0o600, 0o611, 0o755, 0o777, 0o4775, 0o601, 0o1666, 0o222, 0o111):
        (tree / f"{mode:o}").write_text("x")
        (tree / f"{mode:o}").chmod(mode)
    (tree / "writable").mkdir(mode=0o777)
    (tree / "link").symlink_to("755")
    _, theirs, ours, expected = commit_both(tmp_path, f"dir={tree}", "--timestamp=@1", "--mode-ro-executables")
    assert ours == expected
    assert "-04555" in ostree(theirs, "ls", BRANCH, "/4775").stdout


def test_single_paths_of_commits_and_directories_are_what_their_options_say(tmp_path: Path) -> None:
    """Where ostree lets a mode that is added to a directory fall, and a link to what is left out fail."""
    (tmp_path / "a/d").mkdir(parents=True)
    for name in ("f", "d/same"):
        (tmp_path / "a" / name).write_text(name)
    target = Target(tmp_path / "target")
    target.ostree("commit", "-b", "made/a", f"--tree=dir={tmp_path / 'a'}")
    (tmp_path / "modes").write_text("512 /d\n18 /\n2048 /f\n")
    (tmp_path / "left out").write_text("/d/same\n")
    lists = (f"--statoverride={tmp_path / 'modes'}", f"--skip-list={tmp_path / 'left out'}")
    for tree in (f"--tree=dir={tmp_path / 'a'}", "--tree-ref=made/a"):
        target.ostree("commit", "-b", BRANCH, tree, *lists)
        target.ostree("export", BRANCH, tmp_path / "out")
        listed = ostree(tmp_path / "out", "ls", "-R", BRANCH).stdout
        modes = {line.split()[-1]: line.split()[0] for line in listed.splitlines()}
        assert modes == {"/": "d00777", "/d": "d01755", "/f": "-04644"}
    # The base is not changed, and what another name of the file is for stays.
    failed = target.ostree("commit", "--base=made/a", *lists, status=2)
    assert "--statoverride names what no tree has: /, /d, /f" in failed.stderr
    with tarfile.open(tmp_path / "linked.tar", "w") as archive:
        for name, kind in (("./", tarfile.DIRTYPE), ("x", tarfile.REGTYPE), ("y", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "x" if kind == tarfile.LNKTYPE else ""
            archive.addfile(member)
    (tmp_path / "left out").write_text("/x\n")
    target.ostree("commit", "-b", BRANCH, f"--tree=tar={tmp_path / 'linked.tar'}", lists[1])
    target.ostree("export", BRANCH, tmp_path / "out")
    assert ostree(tmp_path / "out", "ls", "--nul-filenames-only", BRANCH).stdout == "/\0/y\0"


def test_devices_in_archives_are_left_out_as_by_ostree(tmp_path: Path) -> None:
    kinds = {".": tarfile.DIRTYPE, "dev": tarfile.DIRTYPE, "dev/null": tarfile.CHRTYPE, "run": tarfile.FIFOTYPE}
    with tarfile.open(tmp_path / "system.tar", "w") as archive:
        for name, kind in {**kinds, "file": tarfile.REGTYPE}.items():
            member = tarfile.TarInfo(name)
            member.type, member.mode = kind, 0o755
            archive.addfile(member)
    (tmp_path / "left out").write_text("/dev/null\n/run\n")
    options = ("--timestamp=@1", f"--skip-list={tmp_path / 'left out'}")
    target, theirs, ours, expected = commit_both(tmp_path, f"tar={tmp_path / 'system.tar'}", *options)
    assert ours == expected
    assert ostree(theirs, "ls", "-R", "--nul-filenames-only", BRANCH).stdout == "/\0/file\0/dev\0"
    dump = "/ 0 40755 1 0 0 0 0.0 - - -\n/null 0 20666 1 0 0 259 0.0 - - -\n/run 0 10666 1 0 0 0 0.0 - - -\n"
    (tmp_path / "system.dump").write_text(dump)
    (tmp_path / "left out").write_text("/null\n/run\n")
    assert target.json("commit", "--from-dump", tmp_path / "system.dump", options[1])["commit"]
    (tmp_path / "left out").write_text("/run\n")
    trees = (f"--tree=tar={tmp_path / 'system.tar'}", f"--from-dump={tmp_path / 'system.dump'}")
    for tree in trees:
        failed = target.ostree("commit", tree, options[1], status=9).stderr
        assert "null is a device" in failed
        assert "--skip-list" in failed
    ostree(theirs, "commit", "--orphan", trees[0], options[1], status=1)


def make_bootable(path: Path, *versions: str) -> Path:
    """Make a system with these kernels, and with what looks like one and is none."""
    tree = make_system(path)
    for version in versions:
        (tree / "usr/lib/modules" / version).mkdir(parents=True)
        (tree / "usr/lib/modules" / version / "vmlinuz").write_text(f"kernel {version}")
    (tree / "usr/lib/modules/5.0-removed").mkdir(parents=True)
    (tree / "usr/lib/modules/5.0-removed/modules.dep").touch()
    (tree / "usr/lib/modules/vmlinuz").touch()
    (tree / "boot").mkdir()
    (tree / "boot/vmlinuz").touch()
    return tree


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--no-bindings",),
        ("--add-metadata-string=version=42", "--bind-ref=zz", "--bind-ref=a/b"),
        ("--add-metadata-string=version=42", "--add-metadata=rpmostree.rpmdb.pkglist=@a(sssss) []", "--no-bindings"),
        ("--add-metadata-string=z=", "--add-metadata-string=a=", "--add-metadata=m=true", "--canonical-permissions"),
        # More than one growth of the dictionary, and hashes of bytes that C takes for negative.
        tuple(f"--add-metadata={key}=uint32 {number}" for number, key in enumerate("äöüßéèêàbcdefghijklmnopqrst")),
    ],
    ids=range(6),
)
def test_bootable_commits_are_the_same_and_come_back(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = make_bootable(tmp_path / "tree", "6.12.0-1-amd64")
    options = ("--bootable", "--timestamp=@1", *options)
    target, theirs, ours, expected = commit_both(tmp_path, f"dir={tree}", *options)
    target.ostree("export", BRANCH, exported := tmp_path / "exported")
    assert ostree(exported, "show", "--raw", BRANCH).stdout == ostree(theirs, "show", "--raw", BRANCH).stdout
    assert ours == expected
    assert "no errors found" in ostree(exported, "fsck").stdout
    for key, value in (("ostree.bootable", "true"), ("ostree.linux", "'6.12.0-1-amd64'")):
        assert ostree(exported, "show", f"--print-metadata-key={key}", BRANCH).stdout.strip() == value
    ostree(exported, "checkout", "-U", BRANCH, tmp_path / "checkout")
    kernel = tmp_path / "checkout/usr/lib/modules/6.12.0-1-amd64/vmlinuz"
    assert kernel.read_text() == "kernel 6.12.0-1-amd64"


def test_bootable_commits_by_chance_have_the_same_ids(tmp_path: Path) -> None:
    """Keys that are often put into the same slots, in numbers around those at which the dictionary grows."""
    (tree := tmp_path / "tree/usr/lib/modules/1").mkdir(parents=True)
    (tree / "vmlinuz").symlink_to("nowhere")
    chooser = random.Random(2026)
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    for count in (1, 4, 5, 6, 12, 13, 14, 27, 28, 29, 60, 150):
        keys = {"".join(chooser.choices("ab.-ü€", k=chooser.randint(1, 6))): None for _ in range(count)}
        options = ("--bootable", "--timestamp=@1", "--parent=none", f"--tree=dir={tmp_path / 'tree'}")
        strings = [f"--add-metadata-string={key}=" for key in keys]
        ours = target.json("commit", f"--branch=b{count}", *options, *strings)["commit"]
        assert ours == ostree(theirs, "commit", f"--branch=b{count}", *options, *strings).stdout.strip(), list(keys)


def test_trees_that_do_not_boot_are_refused_by_both(tmp_path: Path) -> None:
    target, theirs = Target(tmp_path / "ours"), make_repo(tmp_path / "theirs")
    two = make_bootable(tmp_path / "two", "6.1", "6.2")
    (linked := tmp_path / "linked").mkdir()
    (linked / "usr").symlink_to(two / "usr")
    for tree, says in (
        (make_bootable(tmp_path / "none"), "the tree has no kernel: no /usr/lib/modules/VERSION/vmlinuz"),
        (make_system(tmp_path / "no modules"), "the tree has no kernel"),
        (linked, "the tree has no kernel"),
        (two, "the tree has 2 kernels in /usr/lib/modules: 6.1, 6.2 (keep the one that is to be booted"),
    ):
        arguments = ("commit", f"--branch={BRANCH}", f"--tree=dir={tree}", "--bootable")
        assert says in target.ostree(*arguments, status=5).stderr
        assert ostree(theirs, *arguments, status=1).stderr
    given = ("--add-metadata-string=ostree.linux=other", f"--tree=dir={make_bootable(tmp_path / 'one', '6.1')}")
    assert (
        "--bootable adds the metadata key 'ostree.linux'"
        in target.ostree("commit", "--bootable", *given, status=2).stderr
    )
    assert target.names() == {}


def test_times_mean_what_they_mean_to_ostree(tmp_path: Path) -> None:
    """In a zone with summer time, whose rules need no file; the clocks go through 01:30 of 3 November twice."""
    (tmp_path / "tree").mkdir()
    theirs, target = make_repo(tmp_path / "theirs"), Target(tmp_path / "target")
    env = {**os.environ, "TZ": "EST5EDT,M3.2.0,M11.1.0"}

    def words(text: str) -> tuple[str, ...]:
        return "commit", f"--timestamp={text}", "-b", BRANCH, f"--tree=dir={tmp_path / 'tree'}", "--parent=none"

    for text in (
        *("@1700000000", "@-1", "@-1.5", "@1700000000.9", "1969-12-31", "2024-01-02", "2024-07-02 03:04"),
        *("2024-07-02 03:04:05", "2024-01-02T03:04:05.9", "2024-01-02T03:04:05Z", "2024-01-02 03:04:05 +05:30"),
        *("2024-01-02T03:04:05-0100", "2024-11-03T01:30:00", "Tue, 02 Jan 2024 03:04:05 -0000", "1 Jan 2024 03:04 PDT"),
        "Tue Jan  2 03:04:05 UTC 2024",
    ):
        made = json.loads(target.ostree(*words(text), "--json", env=env).stdout)["commit"]
        assert (text, made) == (text, ostree(theirs, *words(text), env=env).stdout.strip())
    for text in ("@9223372036854775808", "2024-02-30", "2024-03-10T02:30:00", "2024-01-02+01:00", "20240102T030405x"):
        ostree(theirs, *words(text), env=env, status=1)
        target.ostree(*words(text), env=env, status=2)

    target.ostree(*words("1969-12-31T23:59:59Z"))
    ostree(theirs, *words("1969-12-31T23:59:59Z"))
    assert "1969-12-31 23:59:59" in ostree(theirs, "show", BRANCH).stdout
    assert "1969-12-31 23:59:59" in target.ostree("inspect", BRANCH).stdout
    before = int(time.time())
    target.ostree(*words("now"))
    assert before <= target.json("inspect", BRANCH)["timestamp"] <= int(time.time())


def test_the_same_branches_and_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    theirs, target = make_repo(tmp_path / "theirs"), Target(tmp_path / "target")
    for option in ("--branch=" + "0f" * 32, "--branch=a\u2013b", "--add-metadata=k=1e999"):
        words = ("commit", "--branch=x", option, f"--tree=dir={tmp_path / 'tree'}")
        if option.startswith("--branch"):
            words = (words[0], *words[2:])
        ostree(theirs, *words, status=1)
        target.ostree(*words, status=2)
    assert target.names() == {}


def test_the_parent_is_what_the_branch_names_and_the_time_comes_from_the_environment(tmp_path: Path) -> None:
    tree = make_system(tmp_path / "tree")
    target, theirs, first, expected = commit_both(tmp_path, f"dir={tree}", env={"SOURCE_DATE_EPOCH": "1234567890"})
    assert first == expected
    (tree / "new").write_text("new")
    arguments = ("commit", "-b", BRANCH, f"--tree=dir={tree}", "--timestamp=@2000000000")
    second = target.json(*arguments)
    assert second["parent"] == first
    assert second["commit"] == ostree(theirs, *arguments).stdout.strip()
    # Both are exported, into one repository.
    exported = tmp_path / "exported"
    target.ostree("export", first, exported)
    assert ostree(exported, "refs").stdout == ""
    again = target.json("export", BRANCH, exported)
    assert (again["files_written"], again["metadata_written"]) == (1, 2)
    log = ostree(exported, "log", BRANCH).stdout
    assert f"commit {second['commit']}" in log
    assert f"commit {first}" in log
    assert "no errors found" in ostree(exported, "fsck").stdout
    nothing = target.json("export", BRANCH, exported)
    assert (nothing["files_written"], nothing["metadata_written"]) == (0, 1)


@pytest.mark.root
def test_tar_archives_are_committed_as_ostree_commits_them(tmp_path: Path) -> None:
    tree = odd_tree(tmp_path / "tree")
    for path in tree.rglob("*"):  # libarchive keeps attributes of no namespace but these
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith("user."):
                os.removexattr(path, name, follow_symlinks=False)
    plain = tmp_path / "tree.tar"
    run("tar", "--format=pax", "--xattrs", "--xattrs-include=*", "-C", tree, "-cf", plain, ".")
    target, _, ours, expected = commit_both(tmp_path, f"tar={plain}", "--timestamp=@1")
    assert ours == expected
    for kind in ("gz", "bz2", "xz"):
        packed = tmp_path / f"tree.tar.{kind}"
        run("tar", "--format=pax", "--xattrs", "--xattrs-include=*", "-C", tree, "-caf", packed, ".")
        assert (
            target.json("commit", f"--tree=tar={packed}", "--timestamp=@1", "-b", BRANCH, "--parent=none")["commit"]
            == ours
        )
    run("tar", "--format=gnu", "-C", tree, "-cf", plain, ".")
    target.ostree("export", BRANCH, tmp_path / "exported")
    names = [ostree(tmp_path / "exported", "ls", "-R", ref).stdout for ref in (BRANCH,)]
    gnu = target.json("commit", f"--tree=tar={plain}", "--timestamp=@1", "-b", "gnu")
    target.ostree("export", "gnu", tmp_path / "exported")
    names.append(ostree(tmp_path / "exported", "ls", "-R", gnu["commit"]).stdout)
    assert names[0] == names[1]


def test_parents_that_a_tar_archive_lacks(tmp_path: Path) -> None:
    """Where one is missing, those above it change hands too; a root that is never missing is root's."""
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")
    path = tmp_path / "x.tar"
    words = ("commit", f"--tree=tar={path}", "-b", BRANCH, "--timestamp=@1", "--parent=none")
    for names in (("/a/b/c",), (), ("f",), ("./", "a/f"), ("b/", "b/c/f"), ("a/f", "./", "a/g", "b/c/l")):
        with tarfile.open(path, "w") as archive:
            for number, name in enumerate(names):
                member = tarfile.TarInfo(name)
                member.uid, member.mode = number + 12, 0o700
                member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                if name == "b/c/l":
                    member.type, member.linkname = tarfile.LNKTYPE, "a/f"
                archive.addfile(member)
        assert "--tar-autocreate-parents" in target.ostree(*words, status=5).stderr, names
        made = target.json(*words, "--tar-autocreate-parents")["commit"]
        assert (names, made) == (names, ostree(theirs, *words, "--tar-autocreate-parents").stdout.strip())


@pytest.mark.parametrize(
    "text",
    [
        *("^etc(/|$),usr/etc\\1", "^etc/,", "^,pre/fix,/", "etc,X\\0X", "(?P<first>.)tc,\\g<first>\\\\\\1", "f$,g"),
        *("[^/]+/$,\\0d/", "nothing,else", "(e)(t)(c),\\3\\2\\1", "(?i)ETC|USR,x"),
    ],
    ids=range(10),
)
def test_names_in_archives_are_replaced_as_by_ostree(tmp_path: Path, text: str) -> None:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            *(("./", tarfile.DIRTYPE), ("./etc/", tarfile.DIRTYPE), ("etc/d/", tarfile.DIRTYPE)),
            *(("./etc/d/f", tarfile.REGTYPE), ("/etc/g", tarfile.LNKTYPE), ("usr/etcfile", tarfile.REGTYPE)),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.uid, member.mode = kind, len(name), 0o755
            member.linkname = "./etc/d/f" if kind == tarfile.LNKTYPE else ""
            member.size = 0 if kind != tarfile.REGTYPE else len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    options = ("--timestamp=@1", "--tar-autocreate-parents", f"--tar-pathname-filter={text}")
    target, theirs, ours, expected = commit_both(tmp_path, f"tar={path}", *options)
    target.ostree("export", BRANCH, tmp_path / "out")
    assert ostree(tmp_path / "out", "ls", "-R", BRANCH).stdout == ostree(theirs, "ls", "-R", BRANCH).stdout
    assert ours == expected
    assert "no errors found" in ostree(tmp_path / "out", "fsck").stdout


def write_archive(path: Path, *members: tuple[str, bytes, int]) -> None:
    """Write an archive of members: name (and -> where it leads), type, user."""
    with tarfile.open(path, "w") as archive:
        for words, kind, uid in members:
            member = tarfile.TarInfo(words.partition(" -> ")[0])
            member.linkname = words.partition(" -> ")[2]
            member.type, member.uid, member.mode = kind, uid, 0o777 if kind == tarfile.SYMTYPE else 0o700 + uid % 8
            archive.addfile(member)


def make_layers(path: Path) -> None:
    """Make directories and archives to be laid over one another, as root, for nobody to own what another does."""
    for number, tree in enumerate(("a", "b", "file", "link", "directory", "over-link", "empty")):
        (path / tree).mkdir()
        os.chown(path / tree, number, 100 + number)
        (path / tree).chmod(0o700 + number)
    (path / "a/d/e").mkdir(parents=True)
    (path / "b/d").mkdir()
    os.chown(path / "b/d", 13, 14)
    os.setxattr(path / "a/d", "user.of", b"a")
    os.setxattr(path / "b/d", "user.of", b"b")
    for name in ("a/f", "a/d/g", "b/f", "b/d/h", "file/d", "over-link/s"):
        (path / name).write_text(name * 100)
    os.link(path / "a/f", path / "a/hard link")
    (path / "a/s").symlink_to("f")
    (path / "link/d").symlink_to("/etc")
    (path / "link/f").symlink_to("d/g")
    (path / "directory/f").mkdir()
    directory, file, link, symlink = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
    write_archive(path / "nothing.tar")
    write_archive(path / "root.tar", ("./", directory, 21))
    write_archive(path / "top.tar", ("top", file, 22), ("s", file, 23), ("f -> to", symlink, 24))
    write_archive(path / "in-d.tar", ("d/new", file, 25), ("d/g", file, 26))
    write_archive(path / "below-d.tar", ("d/n/n/new", file, 27))
    write_archive(path / "apart.tar", ("apart/new", file, 28), ("apart/n/new", file, 29))
    write_archive(path / "d.tar", ("d/", directory, 30))
    write_archive(path / "links.tar", ("ln -> f", link, 31), ("d/ln -> s", link, 0), ("f -> d/g", link, 0))
    write_archive(path / "itself.tar", ("f -> f", link, 0))
    write_archive(path / "replaced.tar", ("f", file, 32), ("ln -> f", link, 0))
    write_archive(path / "dangling.tar", ("ln -> nothing", link, 0))
    write_archive(path / "to-d.tar", ("ln -> d", link, 0))
    write_archive(path / "file-d.tar", ("d", file, 33))
    write_archive(path / "link-d.tar", ("d -> f", link, 0))
    write_archive(path / "symlink-d.tar", ("d -> f", symlink, 0))
    write_archive(path / "d-f.tar", ("f/", directory, 0))
    write_archive(path / "in-f.tar", ("f/new", file, 0))
    write_archive(path / "through.tar", ("s/new", file, 0))


def layers(path: Path, case: str) -> list[str]:
    """Return the arguments for the trees that a case names; + makes directories that they lack."""
    return [
        "--tar-autocreate-parents"
        if name == "+"
        else f"--tree={'tar' if name.endswith('.tar') else 'dir'}={path / name}"
        for name in case.split()
    ]


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


def random_layer(path: Path, chooser: random.Random) -> str:
    """Make a directory or an archive of it; return the word for --tree."""
    names = "abc"
    path.mkdir()
    for _ in range(chooser.randrange(6)):
        entry = path.joinpath(*chooser.choices(names, k=chooser.randrange(1, 4)))
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            match chooser.randrange(4):
                case 0:
                    entry.mkdir()
                case 1:
                    entry.symlink_to(chooser.choice(names))
                case _:
                    entry.write_text(f"{path.name} {entry.name}" * chooser.choice((1, 500)))
        except OSError:
            continue  # the name is taken
        os.chown(entry, chooser.randrange(3), 0, follow_symlinks=False)
    path.chmod(0o755 - chooser.randrange(2))
    if chooser.random() < 0.5:
        return f"dir={path}"
    members = [each.relative_to(path) for each in sorted(path.rglob("*"))]
    root = ["."] if chooser.random() < 0.7 else []
    run(
        "tar",
        "--no-recursion",
        "-C",
        path,
        "-cf",
        f"{path}.tar",
        "-T",
        "-",
        input="\n".join([*root, *map(str, members)]),
    )
    return f"tar={path}.tar"


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


@pytest.mark.root
def test_options_by_chance_mean_what_they_mean_to_ostree(tmp_path: Path) -> None:
    """All that may be combined, on trees over one another and over other commits."""
    target, theirs = Target(tmp_path / "target"), make_repo(tmp_path / "theirs")
    (kernel := tmp_path / "kernel/usr/lib/modules/1").mkdir(parents=True)
    (kernel / "vmlinuz").write_text("kernel")
    lower = ("commit", "-b", "made/lower", f"--tree=dir={tmp_path / 'kernel'}", "--timestamp=@1")
    assert target.json(*lower)["commit"] == ostree(theirs, *lower).stdout.strip()
    (tmp_path / "modes").write_text("=2541 /usr/lib/modules/1/vmlinuz\n=1023 /usr/lib\n")
    (tmp_path / "left out").write_text("/usr/lib/modules/1/vmlinuz\n")
    lists = (f"--statoverride={tmp_path / 'modes'}", f"--skip-list={tmp_path / 'left out'}")
    free = (
        *(
            "--bootable",
            "--mode-ro-executables",
            "--no-xattrs",
            "--skip-if-unchanged",
            "--add-metadata-string=b=",
            *lists,
        ),
        *(
            "--add-metadata=a=1",
            "--add-metadata-string=version=1",
            "--keep-metadata=ostree.ref-binding",
            "--bind-ref=zz",
        ),
    )
    answers = []
    for seed in range(40):
        chooser = random.Random(seed)
        trees = [f"dir={tmp_path / 'kernel'}", random_layer(tmp_path / f"{seed}", chooser)]
        chooser.shuffle(trees)
        options = [option for option in free if chooser.random() < 0.3]
        if "--keep-metadata=ostree.ref-binding" in options:
            options = [*(option for option in options if option != "--bind-ref=zz"), "--no-bindings"]
        if trees[0].startswith("dir") and trees[1].startswith("dir") and chooser.random() < 0.5:
            options += chooser.choice(
                [("--owner-uid=7",), ("--owner-gid=9",), ("--no-xattrs", "--canonical-permissions")]
            )
        else:
            options.append("--tar-autocreate-parents" if "tar=" in "".join(trees) else "--orphan")
        commits = chooser.choice([(), ("--base=made/lower",), ("--tree-ref=made/lower",)])
        branch = [] if "--orphan" in options else ["-b", f"branch{chooser.randrange(2)}"]
        words = ("commit", *branch, *options, f"--timestamp=@{seed}", *commits, *(f"--tree={tree}" for tree in trees))
        of_ostree = [word.replace("--tree-ref=", "--tree=ref=") for word in words]
        expected = ostree(theirs, *of_ostree, status=None)
        done = target.ostree(*words, "--json", status=None)
        answers.append(expected.returncode)
        made = json.loads(done.stdout)["commit"] if done.returncode == 0 else ""
        assert (words, made) == (words, expected.stdout.strip()), (done.stderr, expected.stderr)
    assert answers.count(0) > 30
    assert answers.count(1) > 2


def test_extended_attributes_of_libarchive(tmp_path: Path) -> None:
    """In base64, with names quoted as in a URL; bsdtar writes them plainly too, which ostree takes for two each."""
    path = tmp_path / "x.tar"
    headers = {"LIBARCHIVE.xattr.user.d%C3%A4": "aGk", "SCHILY.xattr.user.plain": "\u00e4"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind in (("./", tarfile.DIRTYPE), ("file", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.pax_headers = kind, 0o755, dict(headers)
            archive.addfile(member)
    target, _, ours, expected = commit_both(tmp_path, f"tar={path}", "--timestamp=@1")
    assert ours == expected

    (tmp_path / "tree").mkdir()
    for name in (b"user.a", "user.\u00e4=".encode()):
        os.setxattr(tmp_path / "tree", name, b"\0\xff")
    run(require("bsdtar"), "--format=pax", "-C", tmp_path / "tree", "-cf", path, ".")
    again = target.json("commit", f"--tree=tar={path}", "--timestamp=@1", "-b", BRANCH, "--parent=none")
    plain = ("commit", f"--tree=dir={tmp_path / 'tree'}", "--timestamp=@1", "-b", BRANCH, "--parent=none")
    assert target.json(*plain)["commit"] == again["commit"]

    headers["LIBARCHIVE.xattr.user.d%C3%A4"] = "a"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("./")
        member.pax_headers = headers
        archive.addfile(member)
    assert "is no base64" in target.ostree("commit", f"--tree=tar={path}", status=5).stderr


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
    back = make_repo(tmp_path / "back", "bare-user")
    ostree(back, "pull-local", "--untrusted", tmp_path / "exported", BRANCH)


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
    target.ostree("export", "a", theirs)
    summary = ostree(theirs, "summary", "--view").stdout
    assert "org.example.Os" in summary
    assert "org.example.Other" in summary
