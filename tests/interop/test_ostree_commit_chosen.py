"""The lists of paths that ``ostree commit`` changes and leaves out, held against the ostree of the distribution."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from support.ostree_making import (
    BRANCH,
    commit_both,
    layers,
    make_layers,
    ostree,
    write_archive,
)
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo

pytestmark = pytest.mark.usefixtures("extensions")


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
