"""Commits of tar archives, held against the ostree of the distribution."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
from pathlib import Path

import pytest

from support.commands import limit_memory, run
from support.made_repo import odd_tree
from support.ostree_making import (
    BRANCH,
    commit_both,
    ostree,
)
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import make_repo
from support.peers import require

pytestmark = pytest.mark.usefixtures("extensions")


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


@pytest.mark.root
@pytest.mark.parametrize(
    "options",
    [
        *(("--incremental",), ("--label=a label",), ("--format=pax", "--selinux")),
        *(("--format=pax", "--acls"), ("--format=pax", "--pax-option=globexthdr.name=g,comment=c")),
    ],
    ids=["incremental", "label", "selinux", "acls", "global headers"],
)
def test_what_gnu_tar_writes_beside_files(tmp_path: Path, options: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    (tree / "d").mkdir(parents=True)
    for name in ("f", "d/g"):
        (tree / name).write_text(name)
    os.link(tree / "f", tree / "d/hard link")
    os.setxattr(tree / "f", "security.selinux", b"system_u:object_r:etc_t:s0\0")
    # The owner, user 1000, who has less, the group, the mask, which is more than the group has, and others.
    entries = ((1, 6, 2**32 - 1), (2, 4, 1000), (4, 4, 2**32 - 1), (16, 6, 2**32 - 1), (32, 0, 2**32 - 1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(tree / "d/g", "system.posix_acl_access", acl)
    run("tar", *options, "-C", tree, "-cf", tmp_path / "x.tar", ".")
    _, _, ours, expected = commit_both(tmp_path, f"tar={tmp_path / 'x.tar'}", "--timestamp=@1")
    assert ours == expected


def test_global_headers_that_members_would_change_by(tmp_path: Path, target: Target) -> None:
    """They are passed over, as by ostree before libarchive 3.8.10, which refuses them."""
    (tmp_path / "tree").mkdir()
    words = {}
    for name, options in (("plain", ()), ("global", ("--pax-option=globexthdr.name=g,uid=7",))):
        path = tmp_path / f"{name}.tar"
        run("tar", "--format=pax", "--owner=8", "--group=8", *options, "-C", tmp_path / "tree", "-cf", path, ".")
        words[name] = ("commit", f"--tree=tar={path}", "-b", BRANCH, "--timestamp=@1", "--parent=none")
    ours = target.json(*words["global"])["commit"]
    assert ours == target.json(*words["plain"])["commit"]
    theirs = ostree(make_repo(tmp_path / "theirs"), *words["global"], status=None)
    refused = theirs.returncode == 1 and "Unsupported pax global extended header attribute 'uid'" in theirs.stderr
    assert refused or theirs.stdout.strip() == ours


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_with_long_names(tmp_path: Path, version: str) -> None:
    """Such a file has two names in its headers: its own, and one for programs that know no sparse files."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("\u00e4", "n" * 150):
        with (tree / name).open("wb") as file:
            file.seek(1 << 20)
            file.write(b"end")
    options = ("--format=pax", "--sparse", f"--sparse-version={version}")
    run("tar", *options, "-C", tree, "-cf", tmp_path / "x.tar", ".")
    _, _, ours, expected = commit_both(tmp_path, f"tar={tmp_path / 'x.tar'}", "--timestamp=@1")
    assert ours == expected


@pytest.mark.parametrize(
    ("size", "headers"),
    [
        (-512, {}),
        (0, {"size": "-1536"}),
        (0, {"size": "-3"}),
        (0, {"GNU.sparse.map": "0,0", "GNU.sparse.size": "9" * 20}),
        (0, {"size": "9" * 5000}),
        (0, {"size": "0" * 5000 + "5"}),
        (0, {"size": "abc"}),
        (0, {"size": "0 5"}),
        (0, {"size": ""}),
    ],
    ids=[
        *("to the same header", "to the first", "some bytes less", "too many", "far too many", "zeros"),
        *("no number", "two numbers", "none"),
    ],
)
def test_sizes_that_nothing_has(tmp_path: Path, target: Target, size: int, headers: dict[str, str]) -> None:
    root, member = tarfile.TarInfo("./"), tarfile.TarInfo("file")
    root.type = tarfile.DIRTYPE
    member.size, member.pax_headers = size, headers
    blocks = member.tobuf(tarfile.PAX_FORMAT if headers else tarfile.GNU_FORMAT)
    (tmp_path / "x.tar").write_bytes(root.tobuf(tarfile.GNU_FORMAT) + blocks + bytes(1024))
    error = target.ostree("commit", f"--tree=tar={tmp_path}/x.tar", status=5).stderr
    assert "x.tar: 'file' has a size that nothing has" in error


@pytest.mark.parametrize("size", ["0" * 20 + "5", " 5", "\t5 "], ids=["zeros", "space", "spaces"])
def test_sizes_that_are_padded(tmp_path: Path, size: str) -> None:
    root, member = tarfile.TarInfo("./"), tarfile.TarInfo("file")
    root.type = tarfile.DIRTYPE
    member.pax_headers = {"size": size}
    content = b"hello".ljust(512, b"\0")
    blocks = root.tobuf(tarfile.GNU_FORMAT) + member.tobuf(tarfile.PAX_FORMAT) + content
    (tmp_path / "x.tar").write_bytes(blocks + bytes(1024))
    _, _, ours, expected = commit_both(tmp_path, f"tar={tmp_path / 'x.tar'}", "--timestamp=@1")
    assert ours == expected


def test_attributes_of_many_members_take_no_memory(tmp_path: Path, target: Target) -> None:
    """400 MB of them are 400 kB in the archive."""
    member = tarfile.TarInfo("./")
    member.type, member.pax_headers = tarfile.DIRTYPE, {"SCHILY.xattr.user.x": "a" * 2_000_000}
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.addfile(member)
        member.type = tarfile.REGTYPE
        for number in range(200):
            member.name = str(number)
            archive.addfile(member)
    words = ("commit", f"--tree=tar={tmp_path}/x.tar.gz")
    assert "malformed file header" in target.ostree(*words, status=5, preexec_fn=limit_memory).stderr
    target.ostree(*words, "--no-xattrs", preexec_fn=limit_memory)


def test_a_header_of_nothing_but_digits(tmp_path: Path, target: Target) -> None:
    """It took hours to be read."""
    member = tarfile.TarInfo("./")
    member.type, member.pax_headers = tarfile.DIRTYPE, {"SCHILY.xattr.user.x": "1" * 2_000_000}
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        archive.addfile(member)
    told = target.ostree("commit", f"--tree=tar={tmp_path}/x.tar.gz", status=8).stderr
    assert "x.tar.gz: a header has too many digits in a row" in told


@pytest.mark.parametrize("kind", ["pax", "pax that ends", "old"])
def test_maps_of_sparse_files_take_no_memory(tmp_path: Path, target: Target, kind: str) -> None:
    """The standard library keeps all of a map, and in a compressed archive it may have gigabytes."""
    member = tarfile.TarInfo("file")
    if kind != "old":
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        blocks, member.size = b"99999999\n" + b"0\n" * (40 << 20), 80 << 20
        if kind == "pax that ends":
            blocks = b"4000000\n" + b"257\n258\n" * 4_000_000 + bytes(1024)
    else:
        member.type = tarfile.GNUTYPE_SPARSE
        blocks = (b"00000000001\0" * 42 + b"\1" * 8) * (200 << 10)
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=1) as archive:
        head = bytearray(member.tobuf(tarfile.PAX_FORMAT))
        if kind == "old":
            head[482] = 1
            head[148:156] = b"%06o\0 " % (256 + sum(head[:148]) + sum(head[156:512]))
        archive.write(head + blocks)
    told = target.ostree("commit", f"--tree=tar={tmp_path}/x.tar.gz", status=8, preexec_fn=limit_memory).stderr
    assert "x.tar.gz: the headers of a member have more than 33554432 bytes, or a map too many numbers" in told
    assert "(pack sparse files without --sparse)" in told


def test_types_of_members(tmp_path: Path) -> None:
    """A name that ends in a slash is a directory's, of whatever age the archive is; an unknown type is told."""
    path = tmp_path / "x.tar"
    for kind, expected in ((b"0", True), (b"\0", True), (b"Z", False)):
        with tarfile.open(path, "w") as archive:
            for name, mode in (("./", 0o755), ("d/", 0o711), ("d/f", 0o600)):
                member = tarfile.TarInfo(name)
                member.type, member.mode = kind if name == "d/" else tarfile.DIRTYPE, mode
                archive.addfile(member)
        if expected:
            _, _, ours, theirs = commit_both(tmp_path / kind.hex(), f"tar={path}", "--timestamp=@1")
            assert ours == theirs
        else:
            error = Target(tmp_path / "target").ostree("commit", f"--tree=tar={path}", status=5).stderr
            assert "'d/' is of the type b'Z'" in error
