"""Trees over one another: whose file is where, under which number, and what they keep open."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from composefs_ext.errors import CorruptError, FormatError, TooLargeError
from composefs_ext.packs import Packs
from composefs_ext.testing import MemoryCore
from composefs_ostree.committing import directory, dumps, listed, tarball
from composefs_ostree.committing.changes import Changes
from composefs_ostree.committing.contents import JOB_SIZE, Maker
from composefs_ostree.committing.directory import DirectoryListing
from composefs_ostree.committing.dumps import dump_listing
from composefs_ostree.committing.inodes import Directory, Meta
from composefs_ostree.committing.layers import Layers
from composefs_ostree.committing.tarball import tar_listing
from support.descriptors import descriptors, left_open

if TYPE_CHECKING:
    from composefs_ext import Core


@pytest.fixture
def with_core(tmp_path: Path) -> Callable[[Callable[[Core], None]], None]:
    """Runs a function with a core."""

    def run(function: Callable[[Core], None]) -> None:
        def handler(_request: Any, core: Core) -> dict[str, Any]:
            function(core)
            return {}

        MemoryCore(tmp_path / "core").run(handler, ["commit"])

    (tmp_path / "core").mkdir()
    return run


def make_tree(path: Path, *files: str) -> str:
    """Make a directory whose files have their tree's name and their own in them."""
    path.mkdir()
    for name in files:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(f"{path.name}:{name}")
    return str(path)


def make_archive(path: Path, *names: str, uid: int = 1) -> str:
    """Make an archive of empty files, and of directories where a name ends with a slash."""
    with tarfile.open(path, "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.type, member.uid = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE, uid
            archive.addfile(member)
    return str(path)


@pytest.mark.parametrize(("uid", "gid"), [(1 << 32, 0), (0, 1 << 32), (-1, 0), (0, -1)])
def test_owners_that_no_file_can_have(tmp_path: Path, with_core: Callable[..., None], uid: int, gid: int) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a")
        member.uid, member.gid = uid, gid
        archive.addfile(member)

    def check(core: Core) -> None:
        with pytest.raises(FormatError, match=f"'a' has the owner {uid}:{gid}"):
            tar_listing(core, str(tmp_path / "a.tar"), Layers(), autocreate=False)

    with_core(check)


def jobs(top: Directory, prefix: str = "") -> dict[str, int]:
    """All jobs of a tree by path."""
    found = {prefix + name.decode(): job for name, job in top.files.items()}
    for name, below in top.directories.items():
        found |= jobs(below, f"{prefix}{name.decode()}/")
    return found


def test_each_job_is_read_from_the_tree_that_has_it(tmp_path: Path, with_core: Callable[..., None]) -> None:
    lowest = make_tree(tmp_path / "lowest", "a", "b", "d/e/c", "d/x")
    empty = make_tree(tmp_path / "empty")
    archive = make_archive(tmp_path / "archive.tar", "d/new", "d/x")
    highest = make_tree(tmp_path / "highest", "b", "d/e/c", "z/last")

    def check(core: Core) -> None:
        layers = Layers()
        layers.add(DirectoryListing(core, lowest, layers))
        layers.add(DirectoryListing(core, empty, layers))
        layers.add(tar_listing(core, archive, layers, autocreate=False))
        layers.add(DirectoryListing(core, empty, layers))
        layers.add(DirectoryListing(core, highest, layers))
        assert layers.jobs == 4 + 2 + 3
        found = jobs(layers.root)
        assert len(set(found.values())) == len(found)
        for order in (sorted(found), sorted(found, reverse=True), sorted(found, key=lambda name: found[name])):
            for name in order:
                tree = "lowest" if name == "a" else "archive.tar" if name in ("d/new", "d/x") else "highest"
                inode = layers.read(found[name])
                if inode.owned:
                    assert os.read(inode.fd, 100).decode() == f"{tree}:{name}"
                    os.close(inode.fd)
                else:
                    assert (tree, inode.size, inode.meta.uid) == ("archive.tar", 0, 1)
                assert layers.where(found[name]) == (
                    f"/{name}" if tree == "archive.tar" else f"{tmp_path}/{tree}/{name}"
                )
        layers.close()

    before = descriptors()
    with_core(check)
    assert not left_open(before)


def test_an_archive_that_is_gone_when_it_is_read(tmp_path: Path, with_core: Callable[..., None]) -> None:
    tree = make_tree(tmp_path / "tree", "a")
    archive = make_archive(tmp_path / "archive.tar", "b")

    def check(core: Core) -> None:
        layers = Layers()
        layers.add(DirectoryListing(core, tree, layers))
        layers.add(tar_listing(core, archive, layers, autocreate=False))
        os.unlink(archive)
        with pytest.raises(CorruptError, match=r"archive\.tar could be opened before, now it cannot: No such file"):
            layers.read(1)
        assert layers.where(1) == "/b"
        os.close(layers.read(0).fd)
        layers.close()

    with_core(check)


def test_a_file_that_is_gone_when_it_is_read(tmp_path: Path, with_core: Callable[..., None]) -> None:
    tree = make_tree(tmp_path / "tree", "a")

    def check(core: Core) -> None:
        layers = Layers()
        layers.add(DirectoryListing(core, tree, layers))
        os.unlink(f"{tree}/a")
        maker = Maker(layers, Packs(core.staging, ()), 64, None)
        maker.start((0).to_bytes(JOB_SIZE, "big"), "staged")
        [(_, error)] = maker.step()
        assert error["message"] == f"{tree}/a: it was there when the tree was listed, and is gone"
        assert "run the command again" in error["data"]["hint"]

    with_core(check)


def test_a_later_directory_has_the_metadata(tmp_path: Path, with_core: Callable[..., None]) -> None:
    tree = make_tree(tmp_path / "tree", "d/e/f", "o/f")
    (tmp_path / "tree/d").chmod(0o711)
    named = make_archive(tmp_path / "named.tar", "d/", uid=2)
    missing = make_archive(tmp_path / "missing.tar", "d/e/f", "d/n/f", uid=3)

    def owners(layers: Layers) -> list[int | None]:
        d = layers.root.directories[b"d"]
        return [None if each.meta is None else each.meta.uid for each in (layers.root, d, d.directories[b"e"])]

    def check(core: Core) -> None:
        layers = Layers()
        layers.add(DirectoryListing(core, tree, layers))
        own = os.getuid()
        layers.add(tar_listing(core, named, layers, autocreate=True))
        assert owners(layers) == [own, 2, own]
        assert layers.root.directories[b"d"].meta == Meta(2, 0, stat.S_IFDIR | 0o644, ())
        layers.add(tar_listing(core, missing, layers, autocreate=True))
        assert owners(layers) == [3, 3, own]
        layers.add(DirectoryListing(core, tree, layers))
        assert owners(layers) == [own, own, own]
        assert sorted(jobs(layers.root)) == ["d/e/f", "d/n/f", "o/f"]

    with_core(check)


def test_long_names_of_directories_that_are_missing_take_no_memory(
    tmp_path: Path, with_core: Callable[..., None]
) -> None:
    """The paths of all directories of this one name would be 500 MB."""
    archive = make_archive(tmp_path / "deep.tar", "/".join([*(["x" * 250] * 1990), "f"]))

    def check(core: Core) -> None:
        layers = Layers()
        tracemalloc.start()
        try:
            tar_listing(core, archive, layers, autocreate=True)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 20_000_000

    with_core(check)


def test_attributes_that_are_not_committed_do_not_count(tmp_path: Path, with_core: Callable[..., None]) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for number in range(20):
            member = tarfile.TarInfo(str(number))
            member.pax_headers = {"SCHILY.xattr.user.x": f"{number:0200}"}
            archive.addfile(member)

    def check(core: Core) -> None:
        core.limits = {"dump_bytes": 3000}
        layers = Layers()
        layers.changes = Changes(keep_xattrs=False)
        assert tar_listing(core, str(path), layers, autocreate=True).jobs == 20

    with_core(check)


def test_pieces_of_sparse_files_are_bounded(
    tmp_path: Path, with_core: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each member's few bytes of map take a hundred times as many when they are kept."""
    monkeypatch.setattr(tarball, "_MAX_PIECES", 100)
    path = tmp_path / "x.tar"

    def check(core: Core) -> None:
        for files in (10, 11):
            with tarfile.open(path, "w") as archive:
                for number in range(files):
                    member = tarfile.TarInfo(str(number))
                    member.size = 5
                    member.pax_headers = {"GNU.sparse.map": "1,1,3,1,5,1,7,1,9,1", "GNU.sparse.size": "11"}
                    archive.addfile(member, io.BytesIO(b"abcde"))
            if files == 10:
                assert tar_listing(core, str(path), Layers(), autocreate=True).jobs == files
            else:
                with pytest.raises(TooLargeError, match=r"x\.tar: sparse files have more than 100 pieces"):
                    tar_listing(core, str(path), Layers(), autocreate=True)

    with_core(check)


def test_the_map_of_a_sparse_file_with_as_many_pieces_as_may_be(tmp_path: Path, with_core: Callable[..., None]) -> None:
    """In a file of terabytes, as GNU tar writes it; it is refused for its pieces alone, and the holes are some too."""
    path = tmp_path / "x.tar"

    def check(core: Core) -> None:
        for entries in (1 << 20, (1 << 20) + 1):
            text = "".join([f"{10**13 + number * 8192}\n1\n" for number in range(entries)])
            sparse = f"{entries}\n{text}".encode()
            sparse += bytes(-len(sparse) % 512)
            member = tarfile.TarInfo("file")
            member.size = len(sparse) + entries
            end = 10**13 + (entries - 1) * 8192 + 1
            member.pax_headers = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.realsize": str(end),
            }
            path.write_bytes(member.tobuf(tarfile.PAX_FORMAT) + sparse + bytes(entries + 1024))
            if entries == 1 << 20:
                assert tar_listing(core, str(path), Layers(), autocreate=True).jobs > 0
            else:
                with pytest.raises(TooLargeError, match=r"x\.tar: sparse files have more than 2097152 pieces"):
                    tar_listing(core, str(path), Layers(), autocreate=True)

    with_core(check)


@pytest.mark.parametrize("long", ["name", "target", "attribute"])
def test_what_is_kept_of_an_archive_is_bounded(tmp_path: Path, with_core: Callable[..., None], long: str) -> None:
    """It is next to nothing where it is compressed; of attributes that many members have there is one."""

    def check(core: Core) -> None:
        core.limits = {"dump_bytes": 3000}
        for is_same in (True, False):
            path = tmp_path / "x.tar"
            with tarfile.open(path, "w") as archive:
                for number in range(20):
                    text = f"{0 if is_same and long == 'attribute' else number:0200}"
                    member = tarfile.TarInfo(text if long == "name" else str(number))
                    if long == "target":
                        member.type, member.linkname = tarfile.SYMTYPE, text
                    elif long == "attribute":
                        member.pax_headers = {"SCHILY.xattr.user.x": text}
                    if not is_same or long == "attribute" or number < 10:
                        archive.addfile(member)
            if is_same:
                assert tar_listing(core, str(path), Layers(), autocreate=True).jobs in (10, 20)
            else:
                with pytest.raises(TooLargeError, match=r"x\.tar: the description .* is larger than 3000 bytes"):
                    tar_listing(core, str(path), Layers(), autocreate=True)

    with_core(check)


def test_a_tree_that_does_not_fit(tmp_path: Path, with_core: Callable[..., None]) -> None:
    file, below = make_tree(tmp_path / "file", "x"), make_tree(tmp_path / "below", "x/y")
    archives = (make_archive(tmp_path / "file.tar", "x"), make_archive(tmp_path / "below.tar", "x/"))

    def lay(core: Core, *trees: str) -> None:
        layers = Layers()
        for tree in trees:
            if tree.endswith(".tar"):
                layers.add(tar_listing(core, tree, layers, autocreate=False))
            else:
                layers.add(DirectoryListing(core, tree, layers))

    def check(core: Core) -> None:
        for files in (file, archives[0]):
            for directories in (below, archives[1]):
                for trees in ((files, directories), (directories, files)):
                    with pytest.raises(FormatError, match="x is both a file and a directory"):
                        lay(core, *trees)
                    lay(core, trees[0], trees[0])

    with_core(check)


def test_the_files_of_all_trees_count_together(
    tmp_path: Path, with_core: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"f{number}" for number in range(6)]
    trees = [make_tree(tmp_path / name, *names) for name in ("lower", "upper")]
    archive = make_archive(tmp_path / "archive.tar", *names)
    (tmp_path / "upper/below").mkdir()
    monkeypatch.setattr(directory, "MAX_INODES", 10)
    monkeypatch.setattr(listed, "MAX_INODES", 10)

    def check(core: Core) -> None:
        DirectoryListing(core, trees[1], Layers())
        tar_listing(core, archive, Layers(), autocreate=True)
        layers = Layers()
        layers.add(DirectoryListing(core, trees[0], layers))
        with pytest.raises(TooLargeError):
            DirectoryListing(core, trees[1], layers)
        with pytest.raises(TooLargeError):
            tar_listing(core, archive, layers, autocreate=True)

    with_core(check)


def test_how_deep_directories_may_be_nested(
    tmp_path: Path, with_core: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = [make_tree(tmp_path / name, f"{place}/file") for name, place in (("flat", "a/b"), ("deep", "a/b/c"))]
    archives = [make_archive(tmp_path / f"{place[-1]}.tar", "./", f"{place}/file") for place in ("a/b", "a/b/c")]
    described = make_archive(tmp_path / "described.tar", "./", "a/", "a/b/", "a/b/c/", "a/b/c/file")
    monkeypatch.setattr(directory, "MAX_DEPTH", 2)
    monkeypatch.setattr(listed, "MAX_DEPTH", 3)

    def check(core: Core) -> None:
        DirectoryListing(core, trees[0], Layers())
        with pytest.raises(TooLargeError, match="nested directories"):
            DirectoryListing(core, trees[1], Layers())
        tar_listing(core, archives[0], Layers(), autocreate=True)
        for archive in (archives[1], described):
            with pytest.raises(TooLargeError, match="nested directories"):
                tar_listing(core, archive, Layers(), autocreate=True)

    with_core(check)


def test_how_long_a_dump_may_be(
    tmp_path: Path, with_core: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"/ 0 40755 2 0 0 0 0.0 - - -\n"
    (tmp_path / "dump").write_bytes(text)

    def check(core: Core) -> None:
        monkeypatch.setattr(dumps, "dump_limit", lambda _: len(text))
        dump_listing(core, str(tmp_path / "dump"), Layers())
        monkeypatch.setattr(dumps, "dump_limit", lambda _: len(text) - 1)
        with pytest.raises(TooLargeError, match=f"dump has more than {len(text) - 1} bytes, too many for a dump"):
            dump_listing(core, str(tmp_path / "dump"), Layers())

    with_core(check)
