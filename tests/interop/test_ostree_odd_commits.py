"""Commits with odd things in them; the witness is a checkout by the ostree command, which becomes the same image."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from composefs_ostree.formats.fileheader import make_head
from support.commands import CFSCTL, run
from support.ostree_modes import copy_repo
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, make_repo
from support.peers import require
from support.server import serve

pytestmark = [pytest.mark.usefixtures("extensions"), pytest.mark.root]


def commit(repo: Path, tree: Path, *options: str) -> str:
    words = ("commit", f"--repo={repo}", f"--branch={BRANCH}", "--subject=x", "--timestamp=@1700000000")
    return run(require("ostree"), *words, *options, tree).stdout.strip()


def checkout_id(target: Target, bare: Path, path: Path) -> str:
    """Return the id of the image of what ostree checks out of a bare repository.

    It makes hard links of equal files, as we do, but not of empty ones, and does not set the times of these and of
    symlinks.
    """
    run("ostree", f"--repo={bare}", "checkout", BRANCH, path)
    empty: dict[object, str] = {}
    for directory, names, files in os.walk(path):
        for name in (f"{directory}/{name}" for name in (*names, *files)):
            status = os.lstat(name)
            if stat.S_ISLNK(status.st_mode):
                os.utime(name, (0, 0), follow_symlinks=False)
            elif stat.S_ISREG(status.st_mode) and not status.st_size:
                attributes = tuple((each, os.getxattr(name, each)) for each in sorted(os.listxattr(name)))
                equal = empty.setdefault((status.st_mode, status.st_uid, status.st_gid, attributes), name)
                if equal != name:
                    os.unlink(name)
                    os.link(equal, name)
                os.utime(name, (0, 0))
        os.utime(directory, (0, 0))
    options = ("--no-propagate-usr-to-root", "--xattrs=keep-user-xattrs")
    return run(CFSCTL, "--repo", target.path, "compute-id", *options, path).stdout.strip()


def empty(tree: Path) -> None:
    pass


def one_empty_file(tree: Path) -> None:
    (tree / "file").touch()


def deep(tree: Path) -> None:
    path = tree
    for number in range(500):
        path /= f"d{number % 10}"
    path.mkdir(parents=True)
    (path / "bottom").write_text("here")


def names(tree: Path) -> None:
    for name in (
        "a b",
        "back\\slash",
        "new\nline",
        "tab\t",
        "é",
        "日本",
        "x" * 255,
        "=",
        "-",
        "~",
        "\x7f",
        "#",
        "@1",
        "%2F",
    ):
        (tree / name).write_text(name)
        (tree / f"d{name[:200]}").mkdir()


def hard_links(tree: Path) -> None:
    for number in range(3):
        (tree / f"d{number}").mkdir()
        (tree / f"d{number}" / "empty").touch()
        (tree / f"d{number}" / "small").write_bytes(b"s" * 64)
        (tree / f"d{number}" / "large").write_bytes(b"l" * 100_000)
        os.symlink("target", tree / f"d{number}" / "link")
    os.link(tree / "d0" / "large", tree / "linked")
    (tree / "d0" / "other-mode").write_bytes(b"l" * 100_000)
    (tree / "d0" / "other-mode").chmod(0o600)


def xattrs(tree: Path) -> None:
    for number, size in enumerate((0, 1, 300, 3000)):
        path = tree / f"file{number}"
        path.write_bytes(b"x" * 100 * number)
        os.setxattr(path, "user.size", b"\0" * size)
        os.setxattr(path, "user.\xe9 name=", b"=\\\n")
    for number in range(20):
        os.setxattr(tree / "file1", f"user.n{number}", b"%d" % number)
    (tree / "directory").mkdir()
    os.setxattr(tree / "directory", "user.d", b"directory")
    os.setxattr(tree, "user.root", b"root")
    os.setxattr(tree / "file2", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))


def modes(tree: Path) -> None:
    for mode in (0, 0o111, 0o644, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777):
        (tree / f"f{mode:o}").write_text(f"{mode:o}")
        (tree / f"f{mode:o}").chmod(mode)
        (tree / f"d{mode:o}").mkdir()
        (tree / f"d{mode:o}").chmod(mode)
    tree.chmod(0o1777)


def owners(tree: Path) -> None:
    for uid, gid in ((1, 2), (65534, 65534), (65536, 1 << 20), ((1 << 32) - 2, (1 << 32) - 2)):
        (tree / f"f{uid}").write_text(f"{uid}")
        (tree / f"d{uid}").mkdir()
        os.symlink("x", tree / f"l{uid}")
        for kind in "fdl":
            os.chown(tree / f"{kind}{uid}", uid, gid, follow_symlinks=False)


def links(tree: Path) -> None:
    for number, target in enumerate(("/", ".", "x" * 4095, "ä\\ =\n", "../" * 100, "dangling")):
        os.symlink(target, tree / f"l{number}")


def sizes(tree: Path) -> None:
    for size in (0, 1, 63, 64, 65, 127, 128, 129, 4095, 4096, 4097, 262_143, 262_144, 262_145, 1_048_576, 1_048_577):
        (tree / f"{size}").write_bytes((b"%d " % size * size)[:size])


LONG = 1200
"""Seconds for what takes long on a busy machine."""

ODD = [empty, one_empty_file, deep, names, hard_links, xattrs, modes, owners, links, sizes]


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_an_odd_commit_is_what_ostree_checks_out(tmp_path: Path, make: object, algorithm: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    assert callable(make)
    make(tree)
    archive = make_repo(tmp_path / "archive")
    commit_id = commit(archive, tree)
    target = Target(tmp_path / "target", algorithm)
    with serve(archive) as server:
        done = target.json("pull", server.url, BRANCH)
    assert done["commit"] == commit_id
    bare = copy_repo(archive, tmp_path / "bare", "bare", BRANCH)
    if algorithm == "sha256":  # images of directories keep 64 bytes inside, those of commits twice the digest
        assert done["image"] == checkout_id(target, bare, tmp_path / "checkout")
    # How a mode is read does not depend on the digests that the core computes.
    for mode in ("bare", "bare-user", "bare-split-xattrs") if algorithm == "sha256" else ("bare",):
        source = bare if mode == "bare" else copy_repo(archive, tmp_path / mode, mode, BRANCH)
        local = Target(tmp_path / f"from-{mode}", algorithm).json("pull-local", source, BRANCH)
        assert (local["image"], local["verity"]) == (done["image"], done["verity"]), mode
    assert target.json("fsck")["ok"]


def test_a_hundred_thousand_files(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for number in range(100):
        (tree / f"d{number}").mkdir(parents=True)
        for file in range(1000):
            (tree / f"d{number}" / f"f{file}").write_bytes(b"%d" % (number * 1000 + file) * (file % 40))
    bare = make_repo(tmp_path / "bare", "bare")
    commit(bare, tree)
    target = Target(tmp_path / "target")
    done = json.loads(target.ostree("pull-local", bare, BRANCH, "--json", timeout=LONG).stdout)
    assert done["files_fetched"] > 97_000
    assert done["image"] == checkout_id(target, bare, tmp_path / "checkout")


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory on tmpfs, which has room for a large file."""
    path = Path(tempfile.mkdtemp(prefix="odd-", dir="/dev/shm"))
    yield path
    shutil.rmtree(path)


def zeros_archive(bare: Path, archive: Path, blocks: int, block: int, end: bytes) -> None:
    """Copy a commit from a bare repository into an archive; its one file is zeros and a few bytes at the end."""
    make_repo(archive)
    shutil.copytree(bare / "refs", archive / "refs", dirs_exist_ok=True)
    for path in (bare / "objects").rglob("*.*"):
        into = archive / path.relative_to(bare)
        into.parent.mkdir(exist_ok=True)
        if path.suffix != ".file":
            shutil.copyfile(path, into)
            continue
        head = make_head(blocks * block + len(end), 0, 0, path.stat().st_mode, b"", b"")
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)  # the next block begins anew
        with open(into.with_suffix(".filez"), "wb") as file:
            file.write(head)
            file.writelines(packed for _ in range(blocks))
            last = zlib.compressobj(6, zlib.DEFLATED, -15)
            file.write(last.compress(end) + last.flush())


def test_a_file_of_more_than_four_gibibytes(in_memory: Path) -> None:
    tree = in_memory / "tree"
    tree.mkdir()
    with open(tree / "large", "wb") as file:
        file.truncate(4 << 30)
        file.seek(4 << 30)
        file.write(b"!")
    bare = make_repo(in_memory / "bare", "bare")
    commit(bare, tree)
    zeros_archive(bare, in_memory / "archive", 64, 64 << 20, b"!")
    digest = run(
        CFSCTL, "--no-repo", "--hash=sha256", "create-dumpfile", "--no-propagate-usr-to-root", tree, timeout=LONG
    ).stdout
    line = digest.split("/large")[1].split()
    target = Target(in_memory / "target")
    with serve(in_memory / "archive") as server:
        done = json.loads(target.ostree("pull", server.url, BRANCH, "--json", timeout=LONG).stdout)
    assert done["files_fetched"] == 1
    [dumped] = [each.split() for each in target.ostree("dump", BRANCH).stdout.splitlines() if "/large" in each]
    assert dumped[1:3] == [f"{(4 << 30) + 1}", "100644"]
    assert dumped[-1] == line[-1]
    local = json.loads(target.ostree("pull-local", bare, BRANCH, "--repair", "--json", timeout=LONG).stdout)
    assert (local["image"], local["files_fetched"]) == (done["image"], 0)


@pytest.mark.parametrize("options", [(), ("--no-xattrs",)], ids=" ".join)
def test_a_canonical_commit_is_the_same_from_bare_user_only(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for make in (hard_links, links, sizes, names):
        (tree / make.__name__).mkdir()
        make(tree / make.__name__)
    (tree / "script").write_text("#!/bin/sh\n")
    (tree / "script").chmod(0o4775)
    os.chown(tree / "script", 5, 6)
    archive = make_repo(tmp_path / "archive")
    only = make_repo(tmp_path / "only", "bare-user-only")
    commits = [commit(repo, tree, "--canonical-permissions", *options) for repo in (archive, only)]
    assert commits[0] == commits[1]
    for content in (only / "objects").rglob("*.file"):  # whoever keeps them there
        os.chown(content, 1000, 1000, follow_symlinks=False)
    pulls = [Target(tmp_path / f"from-{repo.name}").json("pull-local", repo, BRANCH) for repo in (archive, only)]
    assert pulls[0] == pulls[1]


def test_an_attribute_without_a_value_is_none(tmp_path: Path) -> None:
    """Somebody may have given it to an object of a bare repository."""
    repo = make_repo(tmp_path / "repo", "bare")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    made = commit(repo, tmp_path / "tree")
    (content,) = (repo / "objects").rglob("*.file")
    os.setxattr(content, "user.empty", b"")
    run("ostree", f"--repo={repo}", "fsck")
    assert Target(tmp_path / "target").json("pull-local", repo, BRANCH)["commit"] == made


@pytest.mark.parametrize("behind", [b"", b"\0", b"\0\0", b"\0more"], ids=["nothing", "NUL", "two", "more"])
def test_a_symlink_of_bare_user_ends_at_the_first_nul(tmp_path: Path, behind: bytes) -> None:
    repo = make_repo(tmp_path / "repo", "bare-user")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("target")
    made = commit(repo, tmp_path / "tree")
    (link,) = (repo / "objects").rglob("*.file")
    link.write_bytes(b"target" + behind)
    run("ostree", f"--repo={repo}", "fsck")
    assert Target(tmp_path / "target").json("pull-local", repo, BRANCH)["commit"] == made


def test_canonical_permissions_leave_extended_attributes_out(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "directory").mkdir(parents=True)
    (tree / "file").write_text("content\n")
    for path in (tree / "directory", tree / "file"):
        os.setxattr(path, "user.x", b"y")
        os.setxattr(path, "trusted.x", b"y")
    expected = commit(make_repo(tmp_path / "archive"), tree, "--canonical-permissions")
    words = (f"--tree=dir={tree}", f"--branch={BRANCH}", "--subject=x", "--timestamp=@1700000000", "--parent=none")
    target = Target(tmp_path / "target")
    for options in ((), ("--no-xattrs",)):
        assert target.json("commit", *words, "--canonical-permissions", *options)["commit"] == expected


@pytest.mark.parametrize("option", ["metadata", "detached-metadata"])
def test_a_key_that_ostree_wrote_twice(tmp_path: Path, option: str) -> None:
    """ostree shows the first and keeps both; here none is taken for what was meant."""
    (tmp_path / "tree").mkdir()
    repo = make_repo(tmp_path / "repo")
    commit(repo, tmp_path / "tree", *(f"--add-{option}-string=version={value}" for value in "12"))
    shown = run(require("ostree"), "show", f"--repo={repo}", f"--print-{option}-key=version", BRANCH).stdout
    assert shown == "'1'\n"
    target = Target(tmp_path / "target")
    refused = target.ostree("pull-local", repo, BRANCH, status=5).stderr
    assert "has the key 'version' twice (who publishes it has to make it anew, with one of them)" in refused
    assert target.names() == {}


def test_detached_metadata_that_come_after_the_parent_make_the_same_stream(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    repo = make_repo(tmp_path / "repo")
    commit(repo, tmp_path / "tree")
    commit_id = commit(repo, tmp_path / "tree", "--add-detached-metadata-string=key=value")
    detached = repo / "objects" / commit_id[:2] / f"{commit_id[2:]}.commitmeta"
    later, at_once = Target(tmp_path / "later"), Target(tmp_path / "at-once")
    hidden = detached.rename(tmp_path / "hidden")
    before = later.json("pull-local", repo, BRANCH, "--depth=1")
    hidden.rename(detached)
    done = later.json("pull-local", repo, BRANCH)
    assert done["verity"] == at_once.json("pull-local", repo, BRANCH, "--depth=1")["verity"]
    assert done["verity"] != before["verity"]


def test_metadata_as_deep_as_glib_reads_them(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    repo = make_repo(tmp_path / "repo")
    levels = 123  # in a variant, the entry of a dictionary, that, and the commit
    value = "<" * levels + "true" + ">" * levels
    commit_id = commit(repo, tmp_path / "tree", f"--add-metadata=key={value}")
    run(require("ostree"), "fsck", f"--repo={repo}")
    target = Target(tmp_path / "target")
    assert target.json("pull-local", repo, BRANCH)["commit"] == commit_id
    assert target.json("inspect", BRANCH)["metadata"]["key"] is True
    assert target.json("fsck")["ok"]
