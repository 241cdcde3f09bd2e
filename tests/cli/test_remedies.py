"""Errors that once had no remedy, or the wrong one."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import resource
import subprocess
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream import Parts
from composefs.splitstream.layout import IMAGE_PREFIX
from support.commands import BIN, CFSCTL, cfsctl, run, the_error
from support.oci_layout import Layout, simple, tar
from support.ostree_pull import LIBEXEC, Target, extensions, start_by
from support.ostree_repo import BRANCH, commit, make_repo
from support.peers import require
from support.populated import populate
from support.remotes import machine
from support.server import serve

__all__ = ["extensions", "machine"]

pytestmark = pytest.mark.usefixtures("extensions", "machine")


@pytest.mark.parametrize("key", ["cert", "key"])
def test_half_of_a_client_certificate(target: Target, tmp_path: Path, key: str) -> None:
    add = ("--repo", target.path, "ostree", "remote", "add", "o", "https://example.com/repo")
    told = the_error(*add, f"--set=tls-client-{key}-path={tmp_path}/client.pem", status=2)
    assert "has both tls-client-cert-path and tls-client-key-path, or neither (if one file holds" in told
    assert cfsctl(*add[:-3], "list").stdout == ""


@pytest.mark.parametrize("name", ["a.conf", "config", "r.trustedkeys.gpg"])
@pytest.mark.parametrize("content", [None, bytes((4 << 20) + 1)], ids=["directory", "large"])
def test_a_file_of_the_machines_remotes_that_is_none(
    target: Target, machine: Path, name: str, content: bytes | None
) -> None:
    if name == "r.trustedkeys.gpg":
        (machine / "config").write_text('[remote "r"]\nurl=https://a.example\n')
    file = machine / name
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    told = the_error("--repo", target.path, "ostree", "remote", "list", status=5)
    assert told.startswith(f"cfsctl: {file}: ")
    assert told.endswith(" (correct this file, or move it away if it is not one of ostree's)\n")


def test_a_file_of_the_machines_remotes_that_cannot_be_parsed(target: Target, machine: Path) -> None:
    (machine / "a.conf").write_text("url=https://a.example\ngarbage\n")
    told = the_error("--repo", target.path, "ostree", "remote", "list", status=5)
    assert told.startswith(f"cfsctl: {machine}/a.conf: line ")
    assert told.endswith(" (correct this file, or move it away if it is not one of ostree's)\n")


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"\x99\x01", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"])
def test_a_file_that_is_no_keyring(target: Target, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    add = ("ostree", "remote", "add", "o", "https://example.com/repo", f"--gpg-import={tmp_path}/key")
    told = the_error("--repo", target.path, *add, status=5)
    assert told.startswith(f"cfsctl: {tmp_path}/key: ")
    assert told.endswith(" (gpg --export KEY > FILE makes a keyring)\n")


def test_a_file_that_is_no_tar_archive(target: Target, tmp_path: Path) -> None:
    (tmp_path / "hostname").write_text("a-machine\n")
    commit = ("--repo", target.path, "ostree", "commit", "-b", "main", f"--tree=tar={tmp_path}/hostname")
    told = the_error(*commit, status=5)
    assert f"{tmp_path}/hostname: not a tar archive" in told
    assert "(tar= takes an archive of tar, plain or compressed by gzip, xz or bzip2; dir= takes a directory)" in told


def test_a_file_that_is_no_archive_of_an_image(target: Target, tmp_path: Path) -> None:
    (tmp_path / "hostname").write_text("a-machine\n")
    told = the_error("--repo", target.path, "oci", "pull", f"oci-archive:{tmp_path}/hostname", status=5)
    assert f"{tmp_path}/hostname: not a tar archive (give the tar of an OCI layout, as skopeo " in told


def test_an_archive_that_is_a_symlink_to_itself(target: Target, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    told = the_error("--repo", target.path, "oci", "pull", f"oci-archive:{tmp_path}/loop", status=1)
    assert told.startswith(f"cfsctl: {tmp_path}/loop: ")
    assert told.endswith(" (a symlink is not followed here, or leads to itself)\n")


@pytest.mark.parametrize("tag", ["", ":1", ":@0"])
def test_a_layout_of_what_docker_has_abandoned(target: Target, tmp_path: Path, tag: str) -> None:
    layout = Layout()
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    layout.add(layout.blob(kind, b"{}"), "1")
    told = the_error("--repo", target.path, "oci", "pull", f"oci:{layout.write(tmp_path)}{tag}", status=3)
    assert f" (it has only {kind}; what can be pulled is made by skopeo copy --format oci)" in told


@pytest.mark.parametrize(
    ("config", "what", "remedy"),
    [
        ("mode=archi", "the mode 'archi' of the repository is unknown", "ostree knows archive, archive-z2, bare, "),
        ("repo_version=2", "repository version '2' is unknown", "ostree writes repo_version=1)"),
    ],
)
def test_an_ostree_repository_of_another_kind(
    target: Target, tmp_path: Path, config: str, what: str, remedy: str
) -> None:
    (tmp_path / "config").write_text(f"[core]\n{config}\n")
    told = the_error("--repo", target.path, "ostree", "pull-local", tmp_path, "main", status=9)
    assert told.startswith(f"cfsctl: {tmp_path}/config: {what} (check what it says: {remedy}")


def test_an_ostree_repository_that_is_no_archive_on_the_web(target: Target, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[core]\nmode=bare-user\n")
    with serve(tmp_path) as server:
        told = the_error("--repo", target.path, "ostree", "pull", server.url, "main", status=9)
        assert server.requests == ["/config"]
    what = "the repository has the mode 'bare-user'; over HTTP only archives can be pulled from"
    assert told.startswith(f"cfsctl: {server.url}/config: {what} (copy it there: ostree init --repo=A --mode=archive; ")


@pytest.mark.parametrize("command", ["pull-local", "export"])
def test_a_ref_of_a_directory_that_names_no_commit(target: Target, tmp_path: Path, command: str) -> None:
    (tmp_path / "tree").mkdir()
    commit(make_repo(tmp_path / "repo"), tmp_path / "tree")
    target.ostree("pull-local", tmp_path / "repo")
    ref = tmp_path / "repo/refs/heads" / BRANCH
    ref.write_bytes(b"")  # as a power cut leaves it
    words = (tmp_path / "repo", BRANCH) if command == "pull-local" else (BRANCH, tmp_path / "repo", "--reference=b")
    told = the_error("--repo", target.path, "ostree", command, *words, status=5)
    assert told.startswith(f"cfsctl: {ref} does not hold a commit id but '' (delete the ref there and set it again, ")


@pytest.mark.parametrize(
    ("index", "what", "remedy"),
    [
        (b"", "is not JSON that can be trusted", "(have the image pushed or copied there again)"),
        (gzip.compress(b"{}", mtime=0), "is compressed, not a document in JSON", "(a server or a proxy compresses"),
        (b" <html>", "is a web page, not a document in JSON", "(check the name; "),
    ],
    ids=["nothing", "gzip", "page"],
)
def test_a_document_that_is_something_else(
    target: Target, tmp_path: Path, index: bytes, what: str, remedy: str
) -> None:
    layout = simple().write(tmp_path / "layout")
    (layout / "index.json").write_bytes(index)
    told = the_error("--repo", target.path, "oci", "pull", f"oci:{layout}", status=5)
    assert told.startswith(f"cfsctl: {layout}/index.json {what}")
    assert remedy in told


def with_version_2(layout: Path) -> None:
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')


def with_a_large_index(layout: Path) -> None:
    (layout / "index.json").write_bytes(bytes((4 << 20) + 1))


def with_a_large_manifest(layout: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["size"] = (4 << 20) + 1
    (layout / "index.json").write_text(json.dumps(index))


def with_fifos(layout: Path) -> None:
    for blob in (layout / "blobs/sha256").iterdir():
        blob.unlink()
        os.mkfifo(blob)


def with_directories(layout: Path) -> None:
    for blob in (layout / "blobs/sha256").iterdir():
        blob.unlink()
        blob.mkdir()


def without_a_platform(layout: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["platform"] = {}
    (layout / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "status", "what", "remedy"),
    [
        (with_version_2, 9, "version '2.0.0' of the layout is unknown", "have it made with version 1.0.0, as skopeo "),
        (with_a_large_index, 8, "/index.json has more than 4194304 bytes", "copy the image to a layout of its own, "),
        (with_a_large_manifest, 8, " has 4194305 bytes, more than 4194304", "have the image made with less in "),
        (with_fifos, 5, " is not a regular file", "have the image pushed or copied there again)"),
        (with_directories, 5, " is not a regular file", "have the image pushed or copied there again)"),
        (without_a_platform, 3, "/index.json has no image for linux/", "nothing there says for which platform it is: "),
    ],
)
def test_a_layout_of_which_something_cannot_be_read(
    target: Target, tmp_path: Path, change: Callable[[Path], None], status: int, what: str, remedy: str
) -> None:
    layout = simple().write(tmp_path / "layout")
    change(layout)
    told = the_error("--repo", target.path, "oci", "pull", f"oci:{layout}", status=status)
    assert what in told
    assert f" ({remedy}" in told


def test_an_image_whose_usr_is_a_file(target: Target, tmp_path: Path) -> None:
    made = Layout()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("usr"))
    made.add(made.image(out.getvalue()), "latest")
    pull = ("oci", "pull", "--bootable", f"oci:{made.write(tmp_path / 'layout')}")
    told = the_error("--repo", target.path, *pull, status=5)
    assert told.endswith("the image's tree: /usr is not a directory (make it one in what the image is made of)\n")


def test_a_layer_whose_compression_is_damaged(target: Target, tmp_path: Path) -> None:
    made = Layout()  # of more bytes than are looked at first, with which a smaller one would show its wrong digest
    made.add(made.image(tar(a=random.Random(0).randbytes(1000))), "latest")
    layout = made.write(tmp_path / "layout")
    for blob in (layout / "blobs/sha256").iterdir():
        data = blob.read_bytes()
        if data.startswith(b"\x1f\x8b"):
            blob.write_bytes(data[:-8] + bytes([data[-8] ^ 1]) + data[-7:])
    told = the_error("--repo", target.path, "oci", "pull", f"oci:{layout}", status=5)
    assert ": damaged gzip data: " in told
    assert told.endswith(" (have the image pushed or copied there again)\n")


@pytest.mark.parametrize("place", ["streams/refs", "images/refs"])
def test_what_refs_hold_where_they_cannot_be_listed(tmp_path: Path, place: str) -> None:
    """Nothing is counted: all of it would be told as garbage, which it is not."""
    made = populate(tmp_path / "repo")
    (made.path / place).rename(tmp_path / "moved")
    (made.path / place).touch()
    told = the_error("--repo", made.path, "du", status=5)
    assert told.startswith(f"cfsctl: {place} is not a directory (it must be one, and no symlink; move ")
    assert f"{place}: it is not a directory" in the_error("--repo", made.path, "gc", status=5)


def test_what_refs_hold_beside_one_that_is_none(tmp_path: Path) -> None:
    made = populate(tmp_path / "repo")
    whole = cfsctl("--repo", made.path, "du")
    assert whole.stderr == ""
    (made.path / "streams/refs/broken").symlink_to("../nothing")
    told = cfsctl("--repo", made.path, "du")
    assert told.stdout == whole.stdout
    assert told.stderr == (
        "cfsctl: left out: streams/refs/broken: there is no streams/nothing (`cfsctl fsck` tells all that is wrong)\n"
    )


@pytest.mark.parametrize("home", ["somewhere", ""])
def test_who_has_no_home(tmp_path: Path, home: str) -> None:
    """Nothing is made below the working directory; without HOME and an entry in passwd, it would be called ~ there."""
    here = tmp_path / "here"
    here.mkdir()
    for command in (["ref", "list"], ["init", "--insecure"]):
        told = the_error("--user", *command, status=3, cwd=here, env=os.environ | {"HOME": home})
        assert told == (
            f"cfsctl: user {os.geteuid()} has no home directory, where the repository would be"
            " (name one with --repo PATH, or set HOME to an absolute path)\n"
        )
    assert os.listdir(here) == []


@pytest.mark.parametrize("seconds", ["nan", "-1", "-nan", "soon"])
def test_a_time_that_is_none(tmp_path: Path, seconds: str) -> None:
    told = the_error("--wait", seconds, "--repo", tmp_path, "gc", status=2)
    assert f"invalid value for '--wait': '{seconds}' is not a number of seconds (" in told


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    script = f"rmdir ../here; exec {CFSCTL} --repo repo ref list"
    done = run("sh", "-c", script, cwd=here, status=3)
    assert done.stderr == "cfsctl: the working directory is not there any more (change to another: cd DIRECTORY)\n"


@pytest.mark.parametrize(
    ("limit", "most", "what", "remedy"),
    [
        (resource.RLIMIT_NOFILE, 16, "Too many open files", "(raise the limit of open files: ulimit -n)"),
        (resource.RLIMIT_FSIZE, 100_000, "File too large", "(raise the limit of a file's size, ulimit -f, or use a "),
    ],
)
def test_limits_of_the_process(target: Target, tmp_path: Path, limit: int, most: int, what: str, remedy: str) -> None:
    """Of the core and of extensions."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(random.Random(1).randbytes(500_000))
    repo = make_repo(tmp_path / "source")
    commit(repo, tmp_path / "tree")

    def lower() -> None:
        resource.setrlimit(limit, (most, most))

    with serve(repo) as server:
        for command in (
            ("ostree", "pull", server.url, BRANCH),
            ("create-image", "--no-propagate-usr-to-root", tmp_path / "tree"),
        ):
            if limit == resource.RLIMIT_NOFILE and command[0] != "ostree":
                continue  # which is content with them
            told = the_error("--repo", target.path, *command, status=1, preexec_fn=lower)
            assert what in told
            assert remedy in told
            assert target.left_over() == []


NO_PROCESS = (
    "Resource temporarily unavailable"
    " (raise the limit of processes: ulimit -u, or that of the control group, pids.max)\n"
)


def without_clone(nth: str) -> list[str]:
    return [require("strace"), "-f", "-qqq", "-o", "/dev/null", "-e", f"inject=clone:error=EAGAIN:when={nth}"]


@pytest.mark.parametrize(
    ("nth", "extension", "what"),
    [
        ("1", "ostree", f"starting {LIBEXEC}/ostree"),
        ("2+", "ostree", "a worker process cannot be started"),
        ("2+", "oci", "a worker process cannot be started"),
    ],
    ids=["extension", "worker", "worker of oci"],
)
def test_no_more_processes(target: Target, tmp_path: Path, nth: str, extension: str, what: str) -> None:
    """The core's first is the extension; that begins as a shell, which has one of its own to read a link."""
    if extension == "oci":
        words = ["oci", "pull", f"oci:{simple().write(tmp_path / 'layout')}"]
    else:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree/large").write_bytes(random.Random(1).randbytes(500_000))
        words = ["ostree", "pull-local", str(make_repo(tmp_path / "source")), BRANCH]
        commit(tmp_path / "source", tmp_path / "tree")
    done = run(*without_clone(nth), CFSCTL, "--repo", target.path, *words, status=1)
    assert done.stderr == f"cfsctl: {what}: {NO_PROCESS}"
    assert target.left_over() == []


def test_no_more_threads(target: Target, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"bytes")
    cfsctl("--repo", target.path, "ostree", "commit", "--branch=it", f"--tree=dir={tmp_path}/tree")
    strace = [require("strace"), "-f", "-qqq", "-o", "/dev/null", "-e", "inject=clone3:error=EAGAIN"]
    done = run(*strace, CFSCTL, "--repo", target.path, "ostree", "fsck", status=1)
    assert done.stderr == (
        "cfsctl: a thread cannot be started"
        " (raise the limit of processes: ulimit -u, or that of the control group, pids.max)\n"
    )
    assert target.left_over() == []


def test_an_extension_that_the_kernel_kills_for_want_of_memory(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_by("import os; os.kill(os.getpid(), 9)", "ostree", tmp_path / "ext", monkeypatch)
    done = cfsctl("--repo", target.path, "ostree", "fsck", status=10)
    assert done.stderr == (
        "cfsctl: extension ostree was killed by SIGKILL without a result"
        " (see whether the system ran out of memory, and run the command again)\n"
    )


def test_no_more_processes_of_the_core(target: Target, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in "ab":
        (tmp_path / "tree" / name).write_bytes(b"many bytes " * 500_000)
    cfsctl("--repo", target.path, "create-image", "--no-propagate-usr-to-root", tmp_path / "tree", "it")
    refused = run(*without_clone("1"), CFSCTL, "--repo", target.path, "fsck", status=1).stderr
    assert refused == f"cfsctl: starting a process to check objects: {NO_PROCESS}"
    tool = (BIN / "mkcomposefs", "--threads=2", tmp_path / "tree", tmp_path / "image")
    assert run(*without_clone("1"), *tool, status=1).stderr.endswith(
        f": starting a process to read files: {NO_PROCESS}"
    )


@pytest.mark.parametrize("library", ["zstandard.backend_c", "isal.igzip_lib"])
def test_a_library_for_which_there_is_no_memory(target: Target, tmp_path: Path, library: str) -> None:
    """The core loads the first, an extension the other."""
    (tmp_path / "tree").mkdir()
    found = find_spec(library)
    assert found is not None
    assert found.origin is not None
    inject = ("-P", os.path.realpath(found.origin), "-e", "trace=mmap", "-e", "inject=mmap:error=ENOMEM")
    strace = [require("strace"), "-f", "-qqq", "-o", "/dev/null", *inject]
    done = run(*strace, CFSCTL, "--repo", target.path, "ostree", "commit", f"--tree=dir={tmp_path}/tree", status=1)
    assert done.stderr == "cfsctl: out of memory (raise the limit of memory, ulimit -v, or free some)\n"
    assert target.left_over() == []


@pytest.mark.parametrize("library", ["zstandard", "pycurl"])
@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        ("No module named x", 9, r"a library cannot be loaded: {} \(install it for .* Python\)"),
        ("cannot import name x", 1, r"internal error: ImportError: {} \(.*\)"),
    ],
)
def test_a_library_that_is_not_there(
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: str,
    error: str,
    status: int,
    told: str,
) -> None:
    """As where it is not built for the machine; the core needs the first, an extension the other.

    A name that is not in it is the mistake of who wrote that.
    """
    (tmp_path / "tree").mkdir()
    places = tmp_path / "python"
    places.mkdir()
    (places / f"{library}.py").write_text(f"raise ImportError({error!r})\n")
    if library == "pycurl":
        start_by(f"import sys; sys.path.insert(0, {str(places)!r})", "ostree", tmp_path / "ext", monkeypatch)
        command: tuple[str, ...] = ("pull", "http://127.0.0.1:1/", "main")
    else:
        monkeypatch.setenv("PYTHONPATH", str(places))
        command = ("commit", f"--tree=dir={tmp_path}/tree")
    done = run(CFSCTL, "--repo", target.path, "ostree", *command, status=status)
    assert re.fullmatch(rf"cfsctl: {told.format(error)}\n", done.stderr)
    assert target.left_over() == []


def test_a_quota_that_is_used_up(target: Target, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(random.Random(1).randbytes(500_000))
    for inject, command in (
        ("linkat:error=EDQUOT", ("create-image", "--no-propagate-usr-to-root", tmp_path / "tree")),
        ("pwrite64:error=EDQUOT", ("ostree", "commit", f"--tree=dir={tmp_path}/tree")),
    ):
        strace = [require("strace"), "-f", "-qqq", "-o", "/dev/null", "-e", f"inject={inject}"]
        done = run(*strace, CFSCTL, "--repo", target.path, *command, status=8)
        assert done.stderr.count("\n") == 1
        assert ": Disk quota exceeded (the file system is the one at /" in done.stderr
        assert done.stderr.endswith(": remove files of yours, or have your quota raised; quota -s shows it)\n")
        assert target.left_over() == []


def test_a_process_that_ends_while_objects_are_checked(tmp_path: Path) -> None:
    """Such as one for which there is no memory; the call is one that only they make."""
    populate(tmp_path / "repo")
    strace = [require("strace"), "-f", "-qqq", "-o", "/dev/null", "-e", "inject=prctl:signal=KILL"]
    done = run(*strace, CFSCTL, "--repo", tmp_path / "repo", "fsck", status=1)
    assert done.stderr.startswith("cfsctl: checking objects: a process ended after ")
    assert done.stderr.endswith(" objects (see whether the system ran out of memory, and run the command again)\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.root
@pytest.mark.parametrize(
    ("call", "error", "what", "remedy"),
    [
        ("linkat", "EPERM", "storing object", "look for an immutable file (lsattr), a file system without links such "),
        ("pidfd_open", "EPERM", "starting extension ostree: ", "FAT, or a container's limits)"),
        ("pidfd_open", "ENOSYS", "starting extension ostree: ", "(the kernel lacks this system call, or a container "),
        ("linkat", "ESTALE", "storing object", "(the file or its directory was removed at the file server: run the "),
        ("flock", "ENOLCK", "opening the repository ", "(its file server gives no locks: mount with nfsvers=4, or "),
    ],
)
def test_a_system_call_that_even_root_is_refused(
    target: Target, tmp_path: Path, call: str, error: str, what: str, remedy: str
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(random.Random(1).randbytes(500_000))
    strace = [require("strace"), "-qqq", "-o", "/dev/null", "-e", f"inject={call}:error={error}"]
    status = 7 if error == "EPERM" else 1
    done = run(*strace, CFSCTL, "--repo", target.path, "ostree", "commit", f"--tree=dir={tmp_path}/tree", status=status)
    assert done.stderr.startswith(f"cfsctl: {what}")
    assert remedy in done.stderr
    assert done.stderr.count("\n") == 1
    assert target.left_over() == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("EROFS", "{} is on a read-only file system (remount its file system writable, or name another repository "),
        ("EPERM", "no permission to write to {} (look for an immutable file (lsattr), a file system "),
    ],
)
def test_a_repository_that_even_root_may_not_write(target: Target, error: str, told: str) -> None:
    """A read-only snapshot of btrfs, of which statvfs(2) says nothing, and an immutable directory."""
    strace = [require("strace"), "-qqq", "-o", "/dev/null", "-e", f"inject=faccessat2:error={error}"]
    done = run(*strace, CFSCTL, "--repo", target.path, "gc", status=7)
    assert done.stderr.startswith("cfsctl: " + told.format(target.path))
    assert done.stderr.count("\n") == 1


def test_a_layer_with_a_file_that_may_not_be_so_large(target: Target, tmp_path: Path) -> None:
    layout = simple().write(tmp_path / "layout")
    told = the_error(
        "--repo",
        target.path,
        *("oci", "pull", f"oci:{layout}:latest", "app"),
        status=1,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert told.startswith(f"cfsctl: {target.path}/staging/")
    assert "File too large (raise the limit of a file's size, ulimit -f" in told


@pytest.mark.parametrize("command", [("ostree", "images"), ("ext", "check", "ostree")], ids=["run", "check"])
def test_no_place_for_temporary_files(target: Target, command: tuple[str, ...]) -> None:
    """Neither TMPDIR nor any other can be written to, as here nothing can."""
    told = the_error(
        "--repo",
        target.path,
        *command,
        status=3,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert told == ("cfsctl: there is no directory for temporary files that can be written to (name one in TMPDIR)\n")


@pytest.mark.root
@pytest.mark.parametrize(
    ("container", "told"),
    [
        ("unshare --user --map-root-user", "cannot run as nobody here: Invalid argument (leave out --ext-user"),
        ("setpriv --bounding-set=-chown", "cannot run as nobody here: Operation not permitted (leave out"),
        ("setpriv --bounding-set=-setuid", "cannot run as nobody here: Operation not permitted (leave out"),
        ("setpriv --bounding-set=-setgid", "cannot run as nobody here: Operation not permitted (leave out"),
    ],
    ids=["namespace", "chown", "setuid", "setgid"],
)
def test_another_user_for_extensions_whom_a_container_lacks(target: Target, container: str, told: str) -> None:
    words = [*container.split(), CFSCTL, "--repo", target.path, "--ext-user", "nobody", "ostree", "images"]
    failed = run(*words, status=7)
    assert told in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_more_arguments_than_a_message_holds(target: Target) -> None:
    """The system takes twice as many bytes; the extension is sent all of them together."""
    words = ["--subpath=/" + "a" * 1000] * 1050
    told = the_error("--repo", target.path, "ostree", "pull", "file:///nowhere", "main", *words, status=2)
    assert "cfsctl: the command's arguments take more than the 1048576 bytes of a message (give fewer or " in told


def test_a_name_that_is_too_long_for_anybody(tmp_path: Path) -> None:
    """Its beginning is told, and what is wrong with it."""
    name = f"{tmp_path}/{'long' * 20_000}"
    for arguments, status in ((("--repo", name, "du"), 1), (("ostree", "pull-local", name, "main"), 1)):
        told = the_error(*arguments, status=status)
        assert name[:1000] in told
        assert told.endswith("long: File name too long (a name has at most 255 bytes, a path 4,095)\n")
        assert len(told) < 7000


def test_a_stream_of_many_images(tmp_path: Path) -> None:
    """A hint names a few of them, however many there are."""
    made = populate(tmp_path / "repo")
    with Repository.open(made.path, writable=True) as repository:
        images = [repository.objects.store_parts([bytes([number])]).id for number in range(40)]
        stream = repository.streams.put(
            Parts(1, b"", [], named_refs=[(f"{IMAGE_PREFIX}{number}", each) for number, each in enumerate(images)])
        )
        named = Publication(streams=[StreamName("many", stream.id)], refs=[RefUpdate("oci/many", "many", "flat")])
        repository.publish(named)
        told = the_error("--repo", made.path, "ls", "many", status=3)
        assert "the image that the stream 'many' names is not published (do again what made it" in told
        repository.publish(Publication(images=[ImageName(each) for each in images]))
    for name in ("many", "oci/many"):
        told = the_error("--repo", made.path, "ls", name, status=2)
        assert f"the stream '{name}' names 40 images (give the id of one, " in told
        assert told.count(f" ({IMAGE_PREFIX}") == sum(each in told for each in images) == 3
        assert told.endswith(", or one of 37 more)\n")


MANY = "".join([f" user.k{number}=v" for number in range(256)])


@pytest.mark.parametrize(
    ("line", "status", "what", "remedy"),
    [
        (
            f"/l 4093 120777 1 0 0 0 0.0 {'t' * 4093} - -",
            8,
            "/usr/l: a symlink's target of 4093 bytes",
            "format 1 can hold it",
        ),
        (
            "/f 0 100644 1 0 0 0 0.0 - - -" + "".join(f" user.k{number}={'v' * 65535}" for number in range(5)),
            8,
            "/usr/f: a file's extended attributes take 327732 bytes, more than 262148",
            "fewer or shorter ones fit",
        ),
        (
            "".join([f"/d{name} 0 40755 2 0 0 0 0.0 - - -{MANY}\n/usr" for name in "ab"]) + "/f 0 100644 1 0 0 0 0.0",
            8,
            "/usr/da: a file has more than 255 extended attributes that others have too",
            "fewer ones fit",
        ),
        (
            "/w 0 20000 2 0 0 0 0.0 - - -\n/usr/x 0 @20000 - - - - - /usr/w - -",
            5,
            "/usr/w: the whiteout has 2 names; a whiteout has one",
            "make each of them a device of its own",
        ),
    ],
    ids=["symlink", "attributes", "shared attributes", "whiteout"],
)
def test_what_an_image_does_not_hold_is_named(tmp_path: Path, line: str, status: int, what: str, remedy: str) -> None:
    (tmp_path / "dump").write_text(f"/ 0 40755 3 0 0 0 0.0\n/usr 0 40755 2 0 0 0 0.0\n/usr{line}\n")
    told = the_error("--no-repo", "--erofs-version=2", "compute-id", f"--from-dump={tmp_path}/dump", status=status)
    assert told.startswith(f"cfsctl: {what}")
    assert told.endswith(f" ({remedy})\n")


OUTPUTS = [
    ("cfsctl", "--help"),
    ("cfsctl", "--version"),
    ("cfsctl", "gc", "--help"),
    ("cfsctl", "ext", "list"),
    ("cfsctl", "ostree", "--help"),
    ("cfsctl", "ostree", "pull", "--help"),
    ("mkcomposefs", "--help"),
    ("mkcomposefs", "--print-digest-only", "."),
    ("composefs-info", "--help"),
    ("mount.composefs", "--help"),
]


@pytest.mark.parametrize("argv", OUTPUTS, ids=" ".join)
def test_output_that_cannot_be_written(tmp_path: Path, argv: tuple[str, ...]) -> None:
    """That is what is told, and it is not the repository's disk that is full."""
    program, *arguments = argv
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [BIN / program, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path
        )
    assert done.returncode == (8 if program == "cfsctl" else 1)
    assert done.stderr.startswith(f"{program}: writing to standard output: No space left on device")
    assert "at /:" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("argv", OUTPUTS, ids=" ".join)
def test_output_that_nobody_reads_any_more(tmp_path: Path, argv: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        argv = str(BIN / argv[0]), *argv[1:]
        done = subprocess.run(argv, stdout=pipe, stderr=subprocess.PIPE, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("what", ["complete", "source"])
def test_completions_that_cannot_be_written(what: str) -> None:
    words = {"_CFSCTL_COMPLETE": f"bash_{what}", "COMP_WORDS": "cfsctl ", "COMP_CWORD": "1"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [CFSCTL], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=os.environ | words
        )
    assert done.returncode == 8
    assert (
        done.stderr
        == "cfsctl: writing to standard output: No space left on device (free some space and run the command again)\n"
    )
