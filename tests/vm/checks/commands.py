"""What users do with a secure repository."""

from __future__ import annotations

import json
from pathlib import Path

from composefs.digest import SHA256, SHA512
from support import commands
from vm import lab
from vm.checks.common import BIG, SOME, measured, objects_of, replace, repository_with_image
from vm.lab import cfsctl


def check_a_new_repository_is_secure(directory: Path) -> None:
    assert "verity:    required" in cfsctl("init", directory / "repo").stdout
    assert measured(directory / "repo/meta.json") is not None
    assert "already" in cfsctl("init", directory / "repo").stdout
    cfsctl("--require-verity", "--repo", directory / "repo", "images")


def check_no_secure_repository_without_verity(directory: Path) -> None:
    assert "--insecure" in cfsctl("init", lab.MEMORY / "repo", status=9).stderr
    cfsctl("init", "--insecure", directory / "repo")
    assert measured(directory / "repo/meta.json") is None
    assert "verity" in cfsctl("--require-verity", "--repo", directory / "repo", "images", status=9).stderr


def check_all_objects_of_an_image_have_verity(directory: Path) -> None:
    for algorithm in (SHA256, SHA512):
        repository, image = repository_with_image(directory / str(algorithm), "--algorithm", algorithm.meta_name)
        objects = objects_of(repository)
        assert image in objects
        assert len(objects) == 3
        for digest, path in objects.items():
            assert measured(path) == digest


def check_fsck_finds_what_the_kernel_refuses(directory: Path) -> None:
    repository, _ = repository_with_image(directory)
    assert json.loads(cfsctl("--repo", repository, "fsck", "--json").stdout)["ok"] is True
    by_content = {path.read_bytes(): path for path in objects_of(repository).values()}
    replace(by_content[SOME], SOME)
    lab.flip(by_content[BIG], 3)
    report = cfsctl("--repo", repository, "fsck", status=1)
    for content in (SOME, BIG):
        assert str(by_content[content].relative_to(repository)) in report.stdout, report
    cfsctl("--repo", repository, "fsck", "--repair", "--from", directory / "tree")
    assert json.loads(cfsctl("--repo", repository, "fsck", "--json").stdout)["ok"] is True
    for digest, path in objects_of(repository).items():
        assert measured(path) == digest


def check_what_is_stored_again_replaces_what_cannot_be_read(directory: Path) -> None:
    """The kernel still tells the digest of a file of which it refuses a page."""
    repository, image = repository_with_image(directory)
    objects = objects_of(repository)
    big = next(path for path in objects.values() if path.read_bytes() == BIG)
    for path in (big, objects[image]):
        lab.flip(path, 3)
    cfsctl("--repo", repository, "create-image", directory / "tree", "it")
    cfsctl("--repo", repository, "fsck")
    for digest, path in objects_of(repository).items():
        assert measured(path) == digest


def check_an_insecure_repository_becomes_secure(directory: Path) -> None:
    repository, image = repository_with_image(directory, "--insecure")
    objects = objects_of(repository)
    assert all(measured(path) is None for path in objects.values())
    damaged = objects[image]
    content = damaged.read_bytes()
    replace(damaged, b"damaged")
    assert image in cfsctl("--repo", repository, "verity", "enable", status=5).stderr
    assert measured(repository / "meta.json") is None
    replace(damaged, content)
    assert "3 objects" in cfsctl("--repo", repository, "verity", "enable").stdout
    for digest, path in objects.items():
        assert measured(path) == digest
    cfsctl("--require-verity", "--repo", repository, "fsck")
    assert "already" in cfsctl("--repo", repository, "verity", "enable").stdout


def check_copying_into_a_secure_repository(directory: Path) -> None:
    source, _ = repository_with_image(directory, "--insecure")
    target = directory / "target"
    cfsctl("init", target)
    assert "objects 3 copied" in cfsctl("--repo", target, "copy", "--from", source, "it").stdout
    for digest, path in objects_of(target).items():
        assert measured(path) == digest
    cfsctl("--require-verity", "--repo", target, "fsck")


def check_mkcomposefs_enables_verity(directory: Path) -> None:
    tree, image = directory / "tree", directory / "image"
    tree.mkdir()
    (tree / "big").write_bytes(BIG)
    for _ in range(2):  # what is there is left as it is
        commands.mkcomposefs("--digest-store", directory / "objects", tree, image)
    [(digest, path)] = objects_of(directory).items()
    assert measured(path) == digest
    assert commands.run(commands.BIN / "composefs-info", "measure-file", path).stdout == f"{digest}\n"


def check_gc_removes_objects_that_have_verity(directory: Path) -> None:
    repository, _ = repository_with_image(directory)
    cfsctl("--repo", repository, "gc")
    assert len(objects_of(repository)) == 3
    cfsctl("--repo", repository, "ref", "remove", "--image", "it")
    cfsctl("--repo", repository, "gc")
    assert objects_of(repository) == {}


def check_an_ostree_pull(directory: Path) -> None:
    """With the commands as they are installed, the extension and its start included."""
    repository = directory / "repo"
    cfsctl("init", repository)
    commands.cfsctl("--repo", repository, "ostree", "pull-local", lab.DISK / "ostree", "demo/main")
    objects = objects_of(repository)
    assert len(objects) > 20
    for digest, path in objects.items():
        assert measured(path) == digest
    mountpoint = directory / "mnt"
    mountpoint.mkdir()
    commands.cfsctl("--repo", repository, "ostree", "mount", "demo/main", mountpoint)
    with lab.unmounted(mountpoint):
        assert (mountpoint / "usr/bin/hello").read_text().startswith("#!/bin/sh")
        assert len((mountpoint / "usr/lib/lib1.so").read_bytes()) > 200_000
    [commit] = (repository / "streams").glob("ostree-commit-*")
    for path in (commit, max(objects.values(), key=lambda path: path.stat().st_size)):
        lab.flip(path, path.stat().st_size - 1)
    commands.cfsctl("--repo", repository, "ostree", "pull-local", "--repair", lab.DISK / "ostree", "demo/main")
    cfsctl("--repo", repository, "fsck")
