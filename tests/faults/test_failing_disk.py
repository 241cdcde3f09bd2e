"""What a user reads when the disk of a repository fails: what was done, with what, in which repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.repository import Repository
from support import strace
from support.commands import CFSCTL, cfsctl, run
from support.made_repo import make_repository
from support.oci_images import init, pull
from support.oci_layers import run_generator
from support.oci_layout import simple
from support.peers import require
from support.populated import Populated, populate
from support.strace import Fault


@pytest.fixture
def repository(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


def failing(repository: Populated, call: str, name: str, *command: str | Path) -> str:
    """Run a command in which every system call of this name on the file called ``name`` fails; return what it says."""
    prefix = strace.injector(repository.path.parent / "log", call, 1, Fault.EIO, children=False)
    done = run(*prefix, "-P", name, CFSCTL, "--repo", repository.path, *command, status=1)
    [said] = [line for line in done.stderr.splitlines() if not line.startswith(prefix[0])]
    return said


def test_an_object(repository: Populated) -> None:
    place = f"{repository.alone[:2]}/{repository.alone[2:]}"
    said = failing(repository, "openat", place, "ls", "os/1")
    assert said.startswith(
        f"cfsctl: opening object {repository.alone} in {repository.path}: Input/output error (the disk"
    )


def test_refs(repository: Populated) -> None:
    said = failing(repository, "openat", "refs", "images")
    assert said.startswith(f"cfsctl: listing images/refs in {repository.path}: Input/output error (the disk")


def test_storing_an_object(repository: Populated, tmp_path: Path) -> None:
    (tmp_path / "tree" / "usr").mkdir(parents=True)
    said = failing(repository, "openat", ".", "create-image", tmp_path / "tree", "os/2")
    assert said.startswith(f"cfsctl: storing an object in {repository.path}: Input/output error (the disk")


def test_a_staging_directory(repository: Populated) -> None:
    said = failing(repository, "mkdirat", "work", "ostree", "untag", "none")
    assert said.startswith(f"cfsctl: making a staging directory in {repository.path}: Input/output error (the disk")


def test_collecting_garbage(repository: Populated) -> None:
    said = failing(repository, "unlinkat", repository.garbage[2:], "gc")
    assert said.startswith(
        f"cfsctl: removing object {repository.garbage} in {repository.path}: Input/output error (the disk"
    )


def test_the_lock(repository: Populated) -> None:
    said = failing(repository, "flock", str(repository.path), "images")
    assert said.startswith(f"cfsctl: opening the repository {repository.path}: Input/output error (the disk")


def test_what_was_left_in_staging(repository: Populated) -> None:
    """The error of the system has a descriptor in the place of a path."""
    said = failing(repository, "getdents64", str(repository.path / "staging"), "ref", "remove", "none")
    assert said.startswith(f"cfsctl: opening the repository {repository.path}: Input/output error (the disk")


def test_a_file_system_that_becomes_read_only(repository: Populated, tmp_path: Path) -> None:
    """Staging cannot be removed then, which is not what the user has to know."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(bytes(300_000))
    inject = ("-qqq", "-o", str(tmp_path / "log"), "-e", "inject=linkat,unlinkat,renameat:error=EROFS")
    commit = ("--repo", repository.path, "ostree", "commit", f"--tree=dir={tmp_path}/tree")
    done = run(require("strace"), *inject, CFSCTL, *commit, status=7)
    assert done.stderr.startswith("cfsctl: storing ")
    assert "Read-only file system (remount its file system writable" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [("ls", "os/1"), ("gc",)], ids=lambda command: command[0])
def test_an_image_of_which_a_page_cannot_be_read(repository: Populated, command: tuple[str, ...]) -> None:
    """The kernel is asked for the pages of a map before they are looked at, as that would end the command."""
    inject = ["-qqq", "-o", str(repository.path.parent / "log"), "-e", "inject=madvise:error=EFAULT"]
    done = run(require("strace"), *inject, CFSCTL, "--repo", repository.path, *command, status=None)
    assert "reading the image: Input/output error" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == (1 if command[0] == "ls" else 5)


def unreadable(path: Path, repo: Path, *command: str | Path, status: int = 1) -> str:
    """Run a command in which no process can read this file or directory; return what it says, if it fails one line."""
    log = repo.parent / "log"
    reads = "read,readv,pread64,preadv,preadv2,getdents64"
    strace = (
        require("strace"),
        "-f",
        "-qqq",
        "-o",
        log,
        "-P",
        path,
        "-e",
        f"trace={reads}",
        "-e",
        f"inject={reads}:error=EIO",
    )
    done = run(*strace, CFSCTL, "--repo", repo, *command, status=status)
    assert not status or done.stderr.count("\n") == 1, done.stderr
    assert "(INJECTED)" in log.read_text()
    return done.stderr


def test_an_object_of_the_repository_that_is_copied_from(repository: Populated, tmp_path: Path) -> None:
    Repository.init(tmp_path / "target", algorithm=SHA256, insecure=True)
    one = repository.files["one"]
    said = unreadable(repository.object(one), tmp_path / "target", "copy", "--from", repository.path, "os/1")
    assert said.startswith(f"cfsctl: reading object {one} in {repository.path}: Input/output error (the disk")


def test_a_directory_that_is_committed(repository: Populated, tmp_path: Path) -> None:
    (tmp_path / "tree/usr").mkdir(parents=True)
    said = unreadable(tmp_path / "tree/usr", repository.path, "ostree", "commit", f"--tree=dir={tmp_path}/tree")
    assert said.startswith(f"cfsctl: {tmp_path}/tree/usr: Input/output error (the disk")


def test_an_image_that_is_pulled(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    simple().write(layout)
    archive = Path(shutil.make_archive(str(tmp_path / "image"), "tar", layout))
    for path in (*(path for path in layout.rglob("*") if path.is_file()), archive):
        repo = tmp_path / f"repo-{path.name}"  # in which no layer is there yet
        Repository.init(repo, algorithm=SHA256, insecure=True)
        source = f"oci-archive:{archive}" if path == archive else f"oci:{layout}"
        said = unreadable(path, repo, "oci", "pull", f"{source}:latest", "app")
        assert said.startswith(f"cfsctl: {path}: Input/output error (the disk")


def test_a_commit_of_which_the_stream_cannot_be_read_is_pulled_again(tmp_path: Path) -> None:
    commit = make_repository(tmp_path, tmp_path / "ostree")
    repo = tmp_path / "repo"
    cfsctl("init", "--insecure", repo)
    cfsctl("--repo", repo, "ostree", "pull-local", tmp_path / "ostree", "demo/main")
    stream = (repo / "streams" / f"ostree-commit-{commit}").resolve()
    before = stream.stat().st_ino
    pull = ("ostree", "pull-local", "--repair", tmp_path / "ostree", "demo/main")
    assert f"ostree-commit-{commit} is pulled again: " in unreadable(stream, repo, *pull, status=0)
    assert stream.stat().st_ino != before


@pytest.mark.parametrize("kind", ["layer", "config", "manifest"])
def test_an_image_of_which_a_stream_cannot_be_read_is_pulled_again(kind: str, tmp_path: Path) -> None:
    repo = init(tmp_path / "repo")
    run_generator("make_oci_layout.py", 1, tmp_path / "layout")
    pull(repo, f"oci:{tmp_path / 'layout'}", "app")
    stream = next((repo / "streams").glob(f"oci-{kind}-*")).resolve()
    before = stream.stat().st_ino
    unreadable(stream, repo, "oci", "pull", "--repair", f"oci:{tmp_path / 'layout'}", "app", status=0)
    assert stream.stat().st_ino != before


@pytest.mark.parametrize("command", ["commit", "export archive", "export bare"])
def test_a_file_of_which_ostree_cannot_read_the_object(command: str, tmp_path: Path) -> None:
    """It is not the disk that is written to, and not the tree, that fails."""
    repo = tmp_path / "repo"
    cfsctl("init", "--insecure", repo)
    (tmp_path / "tree" / "usr").mkdir(parents=True)
    (tmp_path / "tree" / "usr" / "file").write_bytes(b"file" * 100_000)
    cfsctl("--repo", repo, "create-image", tmp_path / "tree", "os")
    [content] = [path for path in repo.glob("objects/*/*") if path.stat().st_size == 400_000]
    if command == "commit":
        said = unreadable(content, repo, "ostree", "commit", "os", "--branch=made")
    else:
        cfsctl("--repo", repo, "ostree", "commit", "os", "--branch=made")
        mode = command.split()[1]
        said = unreadable(content, repo, "ostree", "export", "made", tmp_path / "to", f"--mode={mode}")
        assert str(tmp_path / "to") not in said
    assert f": object {content.parent.name}{content.name}: Input/output error (" in said


def test_a_kernel_that_cannot_be_read(tmp_path: Path) -> None:
    repo = init(tmp_path / "repo")
    run_generator("make_boot_layout.py", 1, tmp_path / "layout")
    image = pull(repo, f"oci:{tmp_path / 'layout'}", "os", "--bootable")["image"]
    (tmp_path / "boot").mkdir()
    cfsctl("--repo", repo, "oci", "prepare-boot", "os", "--bootdir", tmp_path / "boot")
    written = {path.read_bytes() for path in (tmp_path / "boot").rglob("*") if path.is_file()}
    objects = cfsctl("--repo", repo, "image-objects", image).stdout.split()
    places = [repo / "objects" / each[-64:-62] / each[-62:] for each in objects]
    content = next(path for path in places if path.read_bytes() in written)
    said = unreadable(content, repo, "oci", "prepare-boot", "os", "--bootdir", tmp_path / "boot")
    assert said.startswith(f"cfsctl: object {content.parent.name}{content.name}: Input/output error (")


@pytest.mark.parametrize("call", ["linkat", "symlinkat"])
@pytest.mark.parametrize("error", ["EPERM", "EOPNOTSUPP", "ENOSYS", "ERANGE"])
def test_a_file_system_without_links_holds_no_repository(call: str, error: str, tmp_path: Path) -> None:
    """FAT has neither kind, SMB often no symlinks, CryFS no hard links.

    That shows when the repository is made, not at the first name.
    """
    inject = ["-qqq", "-o", str(tmp_path / "log"), "-e", f"inject={call},{call.removesuffix('at')}:error={error}"]
    done = run(require("strace"), *inject, CFSCTL, "init", "--insecure", tmp_path / "below" / "repo", status=9)
    assert done.stderr == (
        f"cfsctl: no repository can be made at {tmp_path}/below/repo: its file system has no hard links, or no "
        "symlinks (name a place on another one, such as ext4, xfs or btrfs)\n"
    )
    assert not (tmp_path / "below").exists()


def test_a_mount_that_has_no_id_for_the_user(tmp_path: Path) -> None:
    inject = ["-qqq", "-o", str(tmp_path / "log"), "-e", "inject=?mkdir,mkdirat:error=EOVERFLOW"]
    done = run(require("strace"), *inject, CFSCTL, "init", "--insecure", tmp_path / "repo", status=1)
    assert done.stderr == (
        f"cfsctl: making the repository {tmp_path}/repo: Value too large for defined data type (this mount or "
        "container maps your user or group to none: run as one that it maps)\n"
    )


def test_a_file_system_that_calls_fs_verity_an_invalid_argument(repository: Populated, tmp_path: Path) -> None:
    """As ntfs-3g does, and maybe other servers of FUSE."""
    meta = str(repository.path / "meta.json")
    inject = ["-qqq", "-o", str(tmp_path / "log"), "-P", meta, "-e", "inject=ioctl:error=EINVAL"]
    assert run(require("strace"), *inject, CFSCTL, "--repo", repository.path, "images").stdout
