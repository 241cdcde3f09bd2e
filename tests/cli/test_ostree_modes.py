"""Pulling from the repositories that keep content as plain files, and from what is not one of them after all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands import CFSCTL, run
from support.ostree_modes import copy_repo
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.peers import require

pytestmark = [pytest.mark.usefixtures("extensions"), pytest.mark.root]

MODES = ["bare", "bare-user", "bare-user-only", "bare-split-xattrs"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree, and an archive repository with a commit of it, which has owners, setuid, attributes and links."""
    path = tmp_path_factory.mktemp("made")
    tree = make_tree(path / "tree")
    tool = tree / "usr" / "bin" / "tool"
    os.chown(tool, 3, 4)
    tool.chmod(0o4755)
    os.setxattr(tool, "user.b", b"\0\xff")
    os.setxattr(tool, "user.a", b"x" * 300)
    (tree / "usr" / "large").write_bytes(bytes(range(256)) * 3000)
    (tree / "usr" / "unreadable").write_bytes(b"secret" * 100)
    (tree / "usr" / "unreadable").chmod(0)
    source = make_repo(path / "archive")
    run(require("ostree"), "commit", f"--repo={source}", f"--branch={BRANCH}", "--subject=x", tree)
    return path


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    """A copy of the archive: ostree links the objects of what it pulls, which a test may then damage in both."""
    return shutil.copytree(made / "archive", tmp_path / "archive")


def canonical(made: Path, path: Path) -> Path:
    """Another archive, of a commit that a bare-user-only repository can keep."""
    make_repo(path)
    commit(path, made / "tree", "--canonical-permissions", "--no-xattrs")
    return path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_every_mode_gives_what_the_archive_gives(
    tmp_path: Path, made: Path, archive: Path, mode: str, algorithm: str
) -> None:
    source = canonical(made, tmp_path / "canonical") if mode == "bare-user-only" else archive
    expected = Target(tmp_path / "from-archive", algorithm).json("pull-local", source, BRANCH)
    repo = copy_repo(source, tmp_path / "source", mode, BRANCH)
    before = listing(repo)
    target = Target(tmp_path / "target", algorithm)
    assert target.json("pull-local", repo, BRANCH) == expected
    assert target.left_over() == []
    assert listing(repo) == before
    assert target.json("pull-local", repo, BRANCH) == {**expected, "metadata_fetched": 0, "files_fetched": 0}
    run(CFSCTL, "--repo", target.path, "fsck")


def listing(repo: Path) -> list[tuple[str, int, int, int]]:
    status = [(str(path), path.lstat()) for path in sorted(repo.rglob("*"))]
    return [(path, each.st_mode, each.st_size, each.st_mtime_ns) for path, each in status]


def test_a_commit_that_bare_user_only_cannot_keep_is_refused_with_the_reason(tmp_path: Path, archive: Path) -> None:
    repo = make_repo(tmp_path / "source", "bare-user-only")
    shutil.rmtree(repo / "objects")
    shutil.copytree(copy_repo(archive, tmp_path / "bare", "bare", BRANCH) / "objects", repo / "objects", symlinks=True)
    shutil.copytree(archive / "refs", repo / "refs", dirs_exist_ok=True)
    refused = Target(tmp_path / "target").ostree("pull-local", repo, BRANCH, status=5)
    assert "--canonical-permissions" in refused.stderr


def test_what_is_damaged_in_bare_user_only_need_not_be_the_commits_fault(tmp_path: Path, made: Path) -> None:
    """Nothing tells the two apart, so both are named, and what helps who only reads the repository comes first."""
    source = canonical(made, tmp_path / "canonical")
    repo = copy_repo(source, tmp_path / "source", "bare-user-only", BRANCH)
    for path in repo.glob("objects/*/*.file"):
        if not path.is_symlink():
            path.write_bytes(b"damage")
    told = Target(tmp_path / "target").ostree("pull-local", repo, BRANCH, status=5).stderr
    assert ".file: its checksum does not match its name (it is damaged, or had an owner, " in told
    assert ": pull from a repository of another mode, or have it committed with --canonical-permissions --no-x" in told


@pytest.mark.parametrize("mode", ["archive", "bare-user"])
def test_what_a_repository_lacks_comes_from_its_parents(
    tmp_path: Path, archive: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Target(tmp_path / "from-archive").json("pull-local", archive, BRANCH)
    whole = copy_repo(archive, tmp_path / "whole", "bare", BRANCH)
    middle = make_repo(tmp_path / "the middle", mode)
    child = make_repo(tmp_path / "child", "bare-user")
    add_parent(child, middle)
    add_parent(middle, whole)
    target = Target(tmp_path / "target")
    # What is read for a repository must be allowed, unless it was named.
    assert f"--ext-read '{middle}'" in target.ostree("pull-local", child, BRANCH, status=7).stderr
    monkeypatch.setenv("COMPOSEFS_EXT_READ", f"{middle}:{whole}")
    assert target.json("pull-local", child, BRANCH) == expected
    # What the child has itself is not looked for elsewhere, and not repaired from there either.
    own = copy_repo(archive, tmp_path / "own", "bare-user", BRANCH)
    add_parent(own, whole)
    path = an_object(own, "file", smallest=1000)
    os.truncate(path, 900)
    refused = Target(tmp_path / "second").ostree("pull-local", own, BRANCH, status=5)
    assert str(path) in refused.stderr


def add_parent(repo: Path, parent: Path | str) -> None:
    with open(repo / "config", "a") as config:
        config.write(f"[core]\nparent={parent}\n")


def test_parents_that_do_not_end_or_are_none(tmp_path: Path, archive: Path) -> None:
    target = Target(tmp_path / "target")
    loop = copy_repo(archive, tmp_path / "loop", "bare-user", BRANCH)
    add_parent(loop, loop)
    assert "do not end" in target.ostree("pull-local", loop, BRANCH, status=5).stderr
    relative = copy_repo(archive, tmp_path / "relative", "bare-user", BRANCH)
    add_parent(relative, "../archive")
    assert "absolute path" in target.ostree("pull-local", relative, BRANCH, status=9).stderr
    missing = copy_repo(archive, tmp_path / "missing", "bare-user", BRANCH)
    add_parent(missing, tmp_path / "no-such")
    assert f"{tmp_path}/no-such/config" in target.ostree("pull-local", missing, BRANCH, status=3).stderr
    (relative / "config").write_text("[core]\nmode=bare-metal\n")
    assert "'bare-metal'" in target.ostree("pull-local", relative, BRANCH, status=9).stderr


def an_object(repo: Path, kind: str, smallest: int = 1) -> Path:
    """A regular file of an object, with at least this many bytes."""
    objects = sorted((repo / "objects").rglob(f"*.{kind}"))
    return next(path for path in objects if not path.is_symlink() and path.stat().st_size >= smallest)


def shorter(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def longer(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def altered(path: Path) -> None:
    with open(path, "r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))


def other_mode(path: Path) -> None:
    if "user.ostreemeta" in os.listxattr(path):
        meta = os.getxattr(path, "user.ostreemeta")
        os.setxattr(path, "user.ostreemeta", meta[:11] + bytes([meta[11] ^ 1]) + meta[12:])
    else:
        path.chmod(path.stat().st_mode ^ 1)


def missing(path: Path) -> None:
    path.unlink()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_device(path: Path) -> None:
    path.unlink()
    os.mknod(path, 0o20644, os.makedev(1, 5))  # /dev/zero, which never ends


def a_symlink_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def a_symlink_to_the_good_one(path: Path) -> None:
    path.rename(path.with_suffix(".good"))
    path.symlink_to(path.with_suffix(".good").name)


DAMAGES = [
    shorter,
    longer,
    altered,
    other_mode,
    missing,
    a_pipe,
    a_directory,
    a_device,
    a_symlink_to_itself,
    a_symlink_to_the_good_one,
]


@pytest.mark.parametrize(
    ("mode", "smallest"),
    [("bare-user", 1), ("bare-user", 1000), ("bare", 1000)],
    ids=["bare-user-inline", "bare-user-external", "bare-external"],
)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_content_object(
    tmp_path: Path, archive: Path, mode: str, smallest: int, damage: Callable[[Path], None]
) -> None:
    repo = copy_repo(archive, tmp_path / "source", mode, BRANCH)
    path = an_object(repo, "file", smallest)
    damage(path)
    target = Target(tmp_path / "target")
    refused = target.ostree("pull-local", repo, BRANCH, status=3 if damage is missing else 5)
    assert refused.stderr.count("\n") == 1
    assert str(path) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert target.names() == {}
    assert target.left_over() == []


METADATA_DAMAGES = [each for each in DAMAGES if each is not other_mode]


# A dirtree and a dirmeta are read in one way.
@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *(("commit", damage) for damage in METADATA_DAMAGES),
        *((("dirtree", "dirmeta")[number % 2], damage) for number, damage in enumerate(METADATA_DAMAGES)),
    ],
)
def test_a_damaged_metadata_object(tmp_path: Path, archive: Path, kind: str, damage: Callable[[Path], None]) -> None:
    repo = copy_repo(archive, tmp_path / "source", "bare-user", BRANCH)
    path = an_object(repo, kind)
    damage(path)
    target = Target(tmp_path / "target")
    refused = target.ostree("pull-local", repo, BRANCH, status=3 if damage is missing else 5)
    assert str(path) in refused.stderr
    assert target.names() == {}


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        (None, "has no attribute"),
        (b"", "has 0 bytes"),
        (bytes(11), "has 11 bytes"),
        (bytes(12), "not the mode"),
        (bytes(10) + b"\x41\xed", "not the mode"),
        (bytes(10) + b"\x81\xa4\xff", "file header"),
        (bytes(10) + b"\xa1\xff", "target"),
    ],
)
def test_damaged_owners_and_attributes_in_bare_user(
    tmp_path: Path, archive: Path, meta: bytes | None, told: str
) -> None:
    repo = copy_repo(archive, tmp_path / "source", "bare-user", BRANCH)
    path = an_object(repo, "file", smallest=1000)
    if meta is None:
        os.removexattr(path, "user.ostreemeta")
    else:
        os.setxattr(path, "user.ostreemeta", meta)
    refused = Target(tmp_path / "target").ostree("pull-local", repo, BRANCH, status=5)
    assert str(path) in refused.stderr
    assert told in refused.stderr


@pytest.mark.parametrize("damage", ["missing", "pipe", "rubbish", "huge", "symlink"])
def test_damaged_attributes_in_bare_split_xattrs(tmp_path: Path, archive: Path, damage: str) -> None:
    repo = copy_repo(archive, tmp_path / "source", "bare-split-xattrs", BRANCH)
    path = an_object(repo, "file-xattrs-link", smallest=100)
    good = path.read_bytes()
    path.unlink()
    match damage:
        case "pipe":
            os.mkfifo(path)
        case "rubbish":
            path.write_bytes(b"\xff" * 100)
        case "huge":
            path.write_bytes(b"")
            os.truncate(path, 1 << 40)
        case "symlink":
            path.with_suffix(".good").write_bytes(good)
            path.symlink_to(path.with_suffix(".good").name)
    refused = Target(tmp_path / "target").ostree("pull-local", repo, BRANCH, status=5)
    assert path.name.removesuffix("-xattrs-link") in refused.stderr


@pytest.mark.parametrize("kind", ["file", "dirtree"])
def test_an_unreadable_object_is_named(tmp_path: Path, archive: Path, kind: str) -> None:
    repo = copy_repo(archive, tmp_path / "source", "bare-user", BRANCH)
    path = an_object(repo, kind)
    path.chmod(0)
    target = Target(tmp_path / "target")
    without_override = "--bounding-set=-dac_override,-dac_read_search"
    refused = run(
        "setpriv", without_override, CFSCTL, "--repo", target.path, "ostree", "pull-local", repo, BRANCH, status=None
    )
    assert refused.returncode not in (0, 1)
    assert f"{path}: Permission denied" in refused.stderr
    assert target.names() == {}
    target.ostree("pull-local", repo, BRANCH)
