"""A repository on a file system that is full, or has no inodes left: that one is named, and nothing is left behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from composefs import fsverity
from composefs.digest import SHA256
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication
from support.commands import CFSCTL, cfsctl, run, the_error
from support.hosting import SAMPLES
from support.mounts import mounted
from support.oci_layout import Layout, tar
from support.ostree_pull import Target, extensions
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.peers import require
from support.populated import make_image, populate
from support.remotes import machine
from support.server import Fault, serve

__all__ = ["extensions", "machine"]

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("extensions", "machine")]

SIZE = 3_000_000
FILES = 60


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file that compresses to nothing, and one that does not; and many small ones."""
    path = tmp_path_factory.mktemp("large")
    for name in ("one", "many"):
        (path / name).mkdir()
    (path / "one/random").write_bytes(random.Random(1).randbytes(SIZE))
    for number in range(FILES):
        (path / f"many/{number}").write_bytes(str(number).encode() * 5000)
    return path


@contextmanager
def disk(path: Path, options: str) -> Iterator[Target]:
    """A repository on a small file system of its own."""
    path.mkdir()
    with mounted(path, "-t", "tmpfs", "-o", options, "tmpfs"):
        target = Target(path / "repo")
        yield target
        assert target.names() == {}
        assert target.left_over() == []


def test_an_ostree_pull(tmp_path: Path, large: Path) -> None:
    repo = make_repo(tmp_path / "source")
    commit(repo, large / "one")
    with disk(tmp_path / "disk", "size=1500k") as target, serve(repo) as server:
        for command, source in (("pull", server.url), ("pull-local", str(repo))):
            told = the_error("--repo", target.path, "ostree", command, source, BRANCH, status=8)
            assert told.startswith(f"cfsctl: {source}/objects/")
            assert ".filez cannot be stored: No space left on device" in told
            assert f" (the file system is the one at {tmp_path}/disk: free some space" in told


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ("", 0),
        ("min-free-space-size=1MB min-free-space-percent=99", 0),
        ("min-free-space-size=3MB", 8),
        ("min-free-space-size=0000000003MB", 8),
        ("min-free-space-percent=20", 0),
        ("min-free-space-size=0MB min-free-space-percent=60", 8),
        ("min-free-space-size=2M", 5),
        ("min-free-space-percent=100", 5),
        ("min-free-space-percent=-1", 5),
        ("min-free-space-percent=-01", 5),
        ("min-free-space-percent=-0", 0),
        ("min-free-space-percent=-", 0),
        ("min-free-space-percent=", 0),
        ("min-free-space-percent=3%", 0),
        ("min-free-space-percent=60.5", 8),
    ],
)
def test_an_export_to_where_some_is_to_be_left_free(tmp_path: Path, large: Path, settings: str, status: int) -> None:
    """It takes 3 MB of 5, if ostree would."""
    target, out = Target(tmp_path / "repo"), tmp_path / "disk/out"
    tree = f"--tree=dir={large / 'one'}"
    target.ostree("commit", tree, "-b", BRANCH)
    out.parent.mkdir()
    for program in ("ostree", "cfsctl"):
        with mounted(out.parent, "-t", "tmpfs", "-o", "size=5m", "tmpfs"):
            config = make_repo(out) / "config"
            config.write_text("\n".join([config.read_text(), "[core]", *settings.split(), ""]))
            if program == "ostree":
                run("ostree", f"--repo={out}", "commit", "-b", BRANCH, tree, status=1 if status else 0)
            else:
                told = target.ostree("export", BRANCH, out, status=status).stderr
                assert ("min-free-space-size" in told) == (status == 8 or "size=2M" in settings)
                assert (f"/config: {settings.partition('=')[0]} is " in told) == (status == 5)
                assert (" are with 2.86 MiB to come (" in told) == (status == 8)  # before anything is written
                left = [*(out / "objects").rglob("*.*"), *(out / "tmp").rglob("cfsctl-*")]
                assert (left == []) == (status != 0)
                if status == 0:  # what is there already needs no more
                    config.write_text(f"{config.read_text()}min-free-space-size=9TB\n")
                    target.ostree("export", BRANCH, out)


@pytest.mark.parametrize("mode", ["archive", "bare-user"])
def test_an_export_that_is_seen_to_take_too_much(tmp_path: Path, mode: str) -> None:
    """Of compressed files nobody knows before how much they take."""
    target, tree, out = Target(tmp_path / "repo"), tmp_path / "tree", tmp_path / "disk/out"
    tree.mkdir()
    for number in range(12):
        (tree / str(number)).write_bytes(random.Random(number).randbytes(SIZE // 12))
    target.ostree("commit", f"--tree=dir={tree}", "-b", BRANCH)
    out.parent.mkdir()
    with mounted(out.parent, "-t", "tmpfs", "-o", "size=5m", "tmpfs"):
        config = make_repo(out, mode) / "config"
        config.write_text(f"{config.read_text()}min-free-space-size=3MB\n")
        told = the_error("--repo", target.path, "ostree", "export", BRANCH, out, status=8)
        assert f"cfsctl: {out}: its config has 3.00 MiB of its disk left free, and " in told
        assert (" are with 2.86 MiB to come (" in told) == (mode != "archive")
        assert [*(out / "objects").rglob("*.*"), *(out / "tmp").rglob("cfsctl-*")] == []


def test_inodes(tmp_path: Path, large: Path) -> None:
    repo = make_repo(tmp_path / "source")
    commit(repo, large / "many")
    with disk(tmp_path / "disk", "size=50m,nr_inodes=40") as target:
        told = the_error("--repo", target.path, "ostree", "pull-local", repo, BRANCH, status=8)
        assert "No space left on device" in told
        assert f"(the file system is the one at {tmp_path}/disk, which has hardly any inodes left: free some" in told


def test_an_image(tmp_path: Path, large: Path) -> None:
    with disk(tmp_path / "disk", "size=1500k,nr_inodes=0") as target:  # no number of inodes, as on btrfs
        create = ("create-image", "--no-propagate-usr-to-root", large / "one")
        told = the_error("--repo", target.path, *create, status=8)
        assert f"(the file system is the one at {tmp_path}/disk: free some space, perhaps with `cfsctl gc`" in told


@pytest.mark.parametrize("damage", ["damaged", "missing"])
def test_a_repair_without_which_nothing_can_be_collected(tmp_path: Path, damage: str) -> None:
    good = populate(tmp_path / "good").path
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4000k", "tmpfs"):
        made = populate(tmp_path / "disk/repo")
        image = made.object(made.alone)
        image.unlink()
        if damage == "damaged":
            image.write_bytes(b"damaged")
        free = os.statvfs(made.path)
        (tmp_path / "disk/fill").write_bytes(bytes(free.f_bavail * free.f_frsize - 36 * 1024))  # 40 KiB are reserved
        assert "fsck --repair" in the_error("--repo", made.path, "gc", status=5)
        cfsctl("--repo", made.path, "fsck", "--repair", "--from", good)
        cfsctl("--repo", made.path, "gc")
        assert made.ids() == made.live


def test_a_file_that_does_not_fit_keeps_no_image_from_being_put_back(tmp_path: Path) -> None:
    """It comes first, in the order of the ids."""
    good = populate(tmp_path / "good")
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4000k", "tmpfs"):
        made = populate(tmp_path / "disk/repo")
        for path in good.path, made.path:
            with Repository.open(path, writable=True) as repository:
                large = (bytes([number]) * 300_000 for number in range(1, 256))
                image, [file] = make_image(repository, next(each for each in large if digest(each) < made.alone))
                repository.publish(Publication(images=[ImageName(image, "large")]))
        for lost in file, made.alone:
            made.object(lost).unlink()
        free = os.statvfs(made.path)
        (tmp_path / "disk/fill").write_bytes(bytes(free.f_bavail * free.f_frsize - 56 * 1024))  # 40 KiB are reserved
        assert "nothing was deleted" in the_error("--repo", made.path, "gc", status=5)
        done = cfsctl("--repo", made.path, "fsck", "--repair", "--from", good.path, status=8)
        assert "repaired objects: 1\n" in done.stdout
        assert " bytes are free for " in done.stderr
        cfsctl("--repo", made.path, "gc")
        assert made.ids() == made.live | {image}
        (tmp_path / "disk/fill").unlink()
        cfsctl("--repo", made.path, "fsck", "--repair", "--from", good.path)


def digest(data: bytes) -> str:
    return fsverity.digest_bytes(data, SHA256).hex()


def test_a_new_repository(tmp_path: Path) -> None:
    """It is not that of the default repository, which the command does not use."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4k", "tmpfs"):
        (tmp_path / "disk/fill").write_bytes(bytes(4096))
        told = the_error("init", "--insecure", tmp_path / "disk/repo", status=8)
        assert f"(the file system is the one at {tmp_path}/disk: free some space and run the command again)" in told
        assert list((tmp_path / "disk").iterdir()) == [tmp_path / "disk/fill"]


@pytest.mark.parametrize("command", ["ref list", "ostree dump"])
def test_standard_output(tmp_path: Path, command: str) -> None:
    """Nor is it that of the repository, if that is not what was written to."""
    repo = make_repo(tmp_path / "source")
    commit(repo, make_tree(tmp_path / "tree", files=8))
    target = Target(tmp_path / "repo")
    target.ostree("pull-local", repo, BRANCH)
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4k", "tmpfs"):
        (tmp_path / "disk/fill").write_bytes(bytes(4096))
        words = [CFSCTL, "--repo", target.path, *command.split(), *([BRANCH] if command == "ostree dump" else [])]
        with (tmp_path / "disk/out").open("wb") as out:
            done = subprocess.run(words, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 8
    assert done.stderr == (
        "cfsctl: writing to standard output: No space left on device"
        f" (the file system is the one at {tmp_path}/disk: free some space and run the command again)\n"
    )


def test_a_cache(tmp_path: Path, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never worth an error, wherever it is: least of all one that blames the repository's file system."""
    repo = make_repo(tmp_path / "source")
    commit(repo, large / "many")
    target = Target(tmp_path / "repo")
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4k", "tmpfs"), serve(repo) as server:
        (tmp_path / "disk/fill").write_bytes(bytes(4096))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "disk"))
        assert target.ostree("pull", server.url, BRANCH).stderr == ""
        files = [path for path in (tmp_path / "disk").rglob("*") if path.is_file()]
        assert sum(path.stat().st_size for path in files) == 4096
    assert target.names()
    assert target.left_over() == []


def test_a_disk_that_becomes_read_only(tmp_path: Path, large: Path) -> None:
    """As ext4 does after an error.  It is not the source that is so."""
    repo = make_repo(tmp_path / "source")
    commit(repo, large / "many")
    remount = ["mount", "-o", "remount,ro", tmp_path / "disk"]
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "tmpfs"), serve(repo) as server:
        target = Target(tmp_path / "disk/repo")
        is_read_only = Fault(until=lambda: subprocess.run(remount, check=False, capture_output=True).returncode == 0)
        server.fault("/objects/*.filez", is_read_only)
        told = the_error("--repo", target.path, "ostree", "pull", server.url, BRANCH, status=7)
    assert told.startswith(f"cfsctl: {server.url}/objects/")
    assert " cannot be stored: " in told
    assert told.endswith(": Read-only file system (the file system is mounted read-only)\n")


def test_an_export(tmp_path: Path, large: Path) -> None:
    """What is full is where the new repository is."""
    repo = make_repo(tmp_path / "source")
    commit(repo, large / "one")
    target = Target(tmp_path / "repo")
    target.ostree("pull-local", repo, BRANCH)
    (tmp_path / "disk").mkdir()
    for size, what in (("4k", "out/config: "), ("1500k", "out/tmp/cfsctl-export-")):
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
            if size == "4k":
                (tmp_path / "disk/fill").write_bytes(bytes(4096))
            told = the_error("--repo", target.path, "ostree", "export", BRANCH, tmp_path / "disk/out", status=8)
            assert told.startswith(f"cfsctl: {tmp_path}/disk/{what}")
            assert f": No space left on device (the file system is the one at {tmp_path}/disk: free some" in told
            assert not list((tmp_path / "disk").rglob("out/**/cfsctl-export-*"))
            assert not (tmp_path / "disk/out/config").exists()


def test_an_export_that_cannot_make_files(tmp_path: Path, large: Path) -> None:
    """What is full is the same where the system names a file relative to a descriptor."""
    repo = make_repo(tmp_path / "source")
    commit(repo, large / "many")
    target = Target(tmp_path / "repo")
    target.ostree("pull-local", repo, BRANCH)
    exported = tmp_path / "disk/out"
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=50m,nr_inodes=40", "tmpfs"):
        make_repo(exported)
        told = the_error("--repo", target.path, "ostree", "export", BRANCH, exported, status=8)
        assert told.startswith(f"cfsctl: {exported}/tmp/cfsctl-export-")
        with contextlib.suppress(OSError):
            for number in range(40):
                (exported.parent / str(number)).touch()
        told = the_error("--repo", target.path, "ostree", "export", BRANCH, exported, status=8)
    disk = f"the file system is the one at {exported.parent}, which has hardly any inodes left"
    assert told.startswith(f"cfsctl: {exported}/tmp: No space left on device ({disk}: free some space")


def test_an_export_that_cannot_begin(tmp_path: Path) -> None:
    """The repository that it made just before goes again."""
    target = Target(tmp_path / "repo")
    target.ostree("commit", f"--tree=dir={make_tree(tmp_path / 'tree', files=1)}", "-b", BRANCH)
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "nr_inodes=13", "tmpfs"):  # one less than it has, with the lock, in its tmp
        told = the_error("--repo", target.path, "ostree", "export", BRANCH, disk / "out", status=8)
        assert told.startswith(f"cfsctl: {disk}/out/tmp: No space left on device")
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize(("sample", "needs"), [("sh/shfetch", "jq"), ("perl/sums", "perl"), ("lua/cpio", "lua5.4")])
def test_the_samples(tmp_path: Path, large: Path, sample: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their own files, as every extension has to tell of them; with sh, of one that is not the last."""
    require(needs)
    require("bsdtar")
    language, name = sample.split("/")
    monkeypatch.setenv("COMPOSEFS_EXT_PATH", str(SAMPLES / language))
    source = shutil.copytree(large / "one", tmp_path / "source")
    digest = hashlib.sha256((source / "random").read_bytes()).hexdigest()
    (source / "SHA256SUMS").write_text(f"{digest}  random\n")
    (source / "small").write_bytes(b"small")
    archive = subprocess.run(
        ["bsdtar", "-cf", "-", "--format=newc", "-C", source, "random"], check=True, capture_output=True
    )
    (tmp_path / "cpio").write_bytes(archive.stdout)
    command = {
        "shfetch": ("put", "x", source / "random", source / "small"),
        "sums": ("pull", source, "x"),
        "cpio": ("import", tmp_path / "cpio", "x"),
    }[name]
    with disk(tmp_path / "disk", "size=1500k") as target:
        told = the_error("--repo", target.path, name, *command, status=8)
        assert "No space left on device (the file system is the one at " in told


def test_an_oci_pull(tmp_path: Path, large: Path) -> None:
    layout = Layout()
    layout.add(layout.image(tar(random=(large / "one/random").read_bytes())), "latest")
    source = layout.write(tmp_path / "layout")
    with disk(tmp_path / "disk", "size=1500k") as target:
        told = the_error("--repo", target.path, "oci", "pull", f"oci:{source}", status=8)
        assert told.startswith(f"cfsctl: {target.path}/staging/")
        assert ": No space left on device (" in told
        assert f"(the file system is the one at {tmp_path}/disk: free some space" in told
