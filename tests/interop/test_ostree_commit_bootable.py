"""Commits that boot, held against the ostree of the distribution."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from support.made_repo import make_system
from support.ostree_making import (
    BRANCH,
    commit_both,
    make_bootable,
    ostree,
)
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo

pytestmark = pytest.mark.usefixtures("extensions")


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
    # Which ostree counts though it is no file.
    (make_bootable(tmp_path / "odd", "6.1") / "usr/lib/modules/6.2/vmlinuz").mkdir(parents=True)
    (linked := tmp_path / "linked").mkdir()
    (linked / "usr").symlink_to(two / "usr")
    for tree, says in (
        (make_bootable(tmp_path / "none"), "the tree has no kernel: no /usr/lib/modules/VERSION/vmlinuz"),
        (make_system(tmp_path / "no modules"), "the tree has no kernel"),
        (linked, "the tree has no kernel"),
        (two, "the tree has 2 kernels in /usr/lib/modules: 6.1, 6.2 (keep the one that is to be booted"),
        (tmp_path / "odd", "the tree has 2 kernels"),
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
