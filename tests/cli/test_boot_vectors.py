"""Bootable trees, by the installed cfsctl: the ids that composefs-rs 0.9.0 gave, and its refusals."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.commands import cfsctl, run
from support.dumps import image_of_its_dump
from support.vectors import DATA

TREES: list[dict[str, Any]] = json.loads((DATA / "tree-options.json").read_text())["trees"]
BOOT: dict[str, Any] = json.loads((DATA / "boot.json").read_text())
CASES = [row for kind in ("errors", "quirks") for row in BOOT[kind] if "tree" in row.get("sha256-v1", ())]
LAYOUTS: dict[int, dict[str, Any]] = {row["seed"]: row for row in BOOT["oci"]}
MODES = {
    "plain": (),
    "plain keep-user-xattrs": ("--xattrs", "keep-user-xattrs"),
    "bootable": ("--bootable",),
    "bootable keep-user-xattrs": ("--bootable", "--xattrs", "keep-user-xattrs"),
}

IN_EVERY_FORMAT = {"compute-id --bootable", "compute-karg"}
STORED = "compute-id --bootable --xattrs keep-user-xattrs"

# composefs-rs refuses these when it stores an image, but compute-id accepts them: only an image that will be stored has
# its boot entries checked, and its policy is not sought through symlinks.
ONLY_STORED = {
    "entry-kernel-missing",
    "entry-kernel-relative-to-boot",
    "entry-directory",
    "entry-not-utf8",
    "uki-symlink",
    "kernel-name-not-utf8",
    "policy-config-symlink",
    "policy-directory-symlink",
}
# These are refused as layers; the tree that the layers stand for is fine.
ONLY_LAYERS = {"whiteout-missing-parent", "opaque-missing-directory"}
# This is refused, and taken here.
WHITEOUTS = "hardlink-to-device-0-0"

pytestmark = pytest.mark.root


def make(dest: Path, seed: int, *options: str) -> Path:
    subprocess.run([sys.executable, DATA / "make_boot_layout.py", str(seed), dest, "--tree", *options], check=True)
    return dest


def formats(row: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...], dict[str, str]]]:
    for key, recorded in row.items():
        if key.startswith("sha") and "extra" not in key:
            algorithm, version = key.split("-v")
            yield key, ("--no-repo", "--hash", algorithm, "--erofs-version", version), recorded


@pytest.mark.parametrize("row", TREES, ids=lambda row: str(row["seed"]))
def test_every_option(tmp_path: Path, row: dict[str, Any]) -> None:
    """With each in one format, with a few in all: tests/interop/test_scan_vectors.py has every combination."""
    tree = make(tmp_path / "tree", row["seed"])
    rows = 0
    for key, options, recorded in formats(row):
        for command, answer in recorded.items():
            if key == "sha256-v1" or command in IN_EVERY_FORMAT:
                words = command.split()
                insecure = [word for word in words if word == "--insecure"]
                done = cfsctl(*options, *insecure, *[word for word in words if word != "--insecure"], tree)
                assert done.stdout == answer + "\n", (key, command)
                rows += 1
    assert rows >= 14


@pytest.mark.parametrize("seed", LAYOUTS)
def test_dumps_of_all_seeds(tmp_path: Path, seed: int) -> None:
    tree = make(tmp_path / "tree", seed)
    for key in ("sha256-v1", "sha512-v1"):
        for mode, digest in LAYOUTS[seed].get(key, {}).get("dump sha256", {}).items():
            options = ("--no-repo", "--hash", key.split("-")[0])
            text = cfsctl(*options, "create-dumpfile", *MODES[mode], tree).stdout.encode("utf-8", "surrogateescape")
            assert hashlib.sha256(text).hexdigest() == digest, (key, mode)


def test_the_recorded_dump(tmp_path: Path) -> None:
    tree = make(tmp_path / "tree", 3)
    options = ("--no-repo", "--hash", "sha256")
    done = cfsctl(*options, "create-dumpfile", "--bootable", "--xattrs", "keep-user-xattrs", tree)
    assert done.stdout.splitlines() == BOOT["dump of seed 3, sha256, bootable keep-user-xattrs"]


@pytest.mark.parametrize("row", TREES, ids=lambda row: str(row["seed"]))
def test_create_image_with_every_option(tmp_path: Path, row: dict[str, Any]) -> None:
    """In one format with each, in all with one."""
    tree = make(tmp_path / "tree", row["seed"])
    rows = 0
    for key, _, recorded in formats(row):
        algorithm, version = key.split("-v")
        repository = tmp_path / key
        cfsctl("init", "--insecure", "--algorithm", f"fsverity-{algorithm}-12", "--erofs-version", version, repository)
        ids = {command: answer for command, answer in recorded.items() if command.startswith("compute-id")}
        # The last again: its objects are there already, and may be named by text alone.
        for command in (*(ids if key == "sha256-v1" else ()), STORED, STORED):
            done = cfsctl("--repo", repository, "create-image", *command.split()[1:], tree, "boot/image")
            assert done.stdout == f"{algorithm}:{ids[command]}\n", (key, command)
            rows += 1
        assert image_of_its_dump(repository, ids[STORED], tmp_path / "dump") == ids[STORED]
    assert rows >= 13


@pytest.mark.parametrize("row", [row for row in CASES if row["case"] != WHITEOUTS], ids=lambda row: row["case"])
def test_odd_trees(tmp_path: Path, row: dict[str, Any]) -> None:
    case = row["case"]
    tree = make(tmp_path / "tree", 0, f"--case={case}")
    for _, options, recorded in formats(row):
        for name in ("tree", "tree --bootable"):
            answer = recorded[name]
            done = cfsctl(*options, "compute-id", *name.split()[1:], tree, status=None)
            if answer.startswith("refused"):
                assert (done.returncode, done.stdout) == (5, ""), done
                assert done.stderr.startswith("cfsctl: ")
            else:
                assert (done.returncode, done.stdout) == (0, answer + "\n"), done

    repository = tmp_path / "repository"
    cfsctl("init", "--insecure", "--algorithm", "fsverity-sha256-12", repository)
    done = cfsctl("--repo", repository, "create-image", "--bootable", tree, "name", status=None)
    tree_refused = row["sha256-v1"]["tree --bootable"].startswith("refused")
    assert (row["rs"] != "accepted") == (tree_refused or case in ONLY_STORED | ONLY_LAYERS)
    if tree_refused or case in ONLY_STORED:
        assert done.returncode in (3, 5)
        assert "internal" not in done.stderr
        assert not (repository / "images").exists() or not list((repository / "images").rglob("*"))
    else:
        assert done.stdout == f"sha256:{row['sha256-v1']['tree --bootable']}\n"


def test_names_of_a_whiteout_are_devices_each(tmp_path: Path) -> None:
    """Which composefs-rs refuses: the whiteouts of an upper directory of overlayfs are one inode."""
    tree = make(tmp_path / "tree", 0, f"--case={WHITEOUTS}")
    name = tree / "etc/h"
    status = name.stat()
    assert (status.st_nlink, status.st_rdev) == (2, 0)
    options = ("--no-repo", "--hash", "sha256")
    found = cfsctl(*options, "compute-id", "--bootable", tree).stdout
    above = name.parent.stat()
    name.unlink()
    os.mknod(name, status.st_mode, status.st_rdev)
    for path, times in ((name, status), (name.parent, above)):
        os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))
    assert cfsctl(*options, "compute-id", "--bootable", tree).stdout == found


def test_the_compared_ids_are_those_of_different_trees(tmp_path: Path) -> None:
    """The test of tests: the rows above would notice a label."""
    tree = make(tmp_path / "tree", 1)
    options = ("--no-repo", "--hash", "sha256")
    before = cfsctl(*options, "compute-id", "--bootable", tree).stdout
    contexts = tree / "etc/selinux/targeted/contexts/files/file_contexts.local"
    mtime = contexts.stat().st_mtime_ns
    contexts.write_text(contexts.read_text() + "/usr/bin/tool0 -- a:b:c\n")
    run("touch", "-d", f"@{mtime // 10**9}.{mtime % 10**9:09}", contexts)
    assert cfsctl(*options, "compute-id", "--bootable", tree).stdout != before
    dump = cfsctl(*options, "create-dumpfile", "--bootable", tree).stdout
    assert "security.selinux=a:b:c" in dump
