"""ls, dump-files and diff on images with every kind of file, names that cannot be shown, and damage."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.fsverity import digest_bytes
from support.commands import CFSCTL, cfsctl
from support.mounts import mounted

BIG, OTHER = b"b" * 100, b"o" * 300
A, B = (digest_bytes(each, SHA256).hex() for each in (BIG, OTHER))
OLD = f"""\
/ 0 40755 3 0 0 0 0.0 - - -
/dev 0 20666 1 0 0 259 1700000000.5 - - -
/dir 0 41777 2 0 0 0 0.0 - - -
/dir/big 100 104755 2 5 6 0 0.0 {A[:2]}/{A[2:]} - {A} user.k=v
/dir/e\\xccvil\\x1b[31m 3 100644 1 0 0 0 -5.0 - abc -
/dir/gr\\xc3\\xbcn\\x20e 0 10644 1 0 0 0 0.0 - - -
/hard 0 @100644 - - - - - /dir/big - -
/sym 3 120777 1 0 0 0 0.0 dir - -
"""
NEW = (
    OLD.replace("/dev 0 20666 1 0 0 259", "/dev 0 20600 1 0 7 260")
    .replace("/hard 0 @100644 - - - - - /dir/big - -\n", f"/hard 300 100644 1 0 0 0 0.0 {B[:2]}/{B[2:]} - {B}\n")
    .replace("/dir/big 100 104755 2", "/dir/big 100 104755 1")
    .replace("user.k=v", "user.k=w")
    .replace("/sym 3 120777 1 0 0 0 0.0 dir", "/new 0 40755 2 0 0 0 0.0 - - -\n/new/x 4 120777 1 0 0 0 0.0 dirx")
)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    path = tmp_path / "repo"
    cfsctl("--repo", path, "--hash", "sha256", "init", "--algorithm", "fsverity-sha256-12", "--insecure")
    tree = tmp_path / "tree"
    (tree / "usr").mkdir(parents=True)
    (tree / "usr" / "a").write_bytes(BIG)
    (tree / "usr" / "b").write_bytes(OTHER)
    cfsctl("--repo", path, "create-image", tree)  # Stores the objects.
    for name, text in (("old", OLD), ("new", NEW)):
        (tmp_path / name).write_text(text)
        cfsctl("--repo", path, "create-image", "--from-dump", tmp_path / name, name)
    return path


def test_ls_of_a_block_device_and_of_a_year_that_no_calendar_has(repo: Path) -> None:
    dump = "/ 0 40755 2 0 0 0 0.0 - - -\n/disk 0 60640 1 0 6 2051 1000000000000.0 - - -\n"
    cfsctl("--repo", repo, "create-image", "--from-dump", "-", "odd", input=dump)
    [_, row] = cfsctl("--repo", repo, "ls", "-l", "odd").stdout.splitlines()
    assert row.split() == ["brw-r-----", "1", "0", "6", "8,3", "1000000000000", "disk"]
    [disk] = json.loads(cfsctl("--repo", repo, "ls", "--json", "odd").stdout)["entries"]
    assert (disk["type"], disk["device"]) == ("block device", {"major": 8, "minor": 3})


def test_ls(repo: Path) -> None:
    assert cfsctl("--repo", repo, "ls", "refs/old").stdout == "dev\ndir\nhard\nsym\n"
    assert cfsctl("--repo", repo, "ls", "old", "//dir/").stdout == "big\ne\\xccvil\\x1b[31m\ngrün e\n"
    assert cfsctl("--repo", repo, "ls", "old", "dir/big").stdout == "big\n"
    below = "dev\ndir\ndir/big\ndir/e\\xccvil\\x1b[31m\ndir/grün e\nhard\nsym\n"
    assert cfsctl("--repo", repo, "ls", "-R", "old", "/").stdout == below
    for of in ("dir/", "dir/big"):
        assert cfsctl("--repo", repo, "ls", "-R", "old", of).stdout == cfsctl("--repo", repo, "ls", "old", of).stdout
    lines = cfsctl("--repo", repo, "ls", "-l", "old").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["MODE", "LINKS", "UID", "GID", "SIZE", "MODIFIED", "NAME"],
        ["crw-rw-rw-", "1", "0", "0", "1,3", "2023-11-14", "22:13", "dev"],
        ["drwxrwxrwt", "2", "0", "0", lines[2].split()[4], "1970-01-01", "00:00", "dir"],
        ["-rwsr-xr-x", "2", "5", "6", "100", "1970-01-01", "00:00", "hard"],
        ["lrwxrwxrwx", "1", "0", "0", "3", "1970-01-01", "00:00", "sym", "->", "dir"],
    ]
    [big, evil, _] = json.loads(cfsctl("--repo", repo, "ls", "--json", "old", "dir").stdout)["entries"]
    assert big == {
        "name": "big",
        "type": "file",
        "mode": "4755",
        "links": 2,
        "uid": 5,
        "gid": 6,
        "size": 100,
        "mtime": {"seconds": 0, "nanoseconds": 0},
        "xattrs": ["user.k"],
        "object": A,
    }
    assert evil["object"] is None
    link = "/ 0 40755 2 0 0 0 0.0 - - -\n/l 3 120777 1 0 0 0 0.0 a\\nb - -\n"
    cfsctl("--repo", repo, "create-image", "--from-dump", "-", "link", input=link)
    assert cfsctl("--repo", repo, "ls", "-l", "link").stdout.endswith(" l -> a\\nb\n")
    assert evil["mtime"]["seconds"] == -5
    for path, names in (
        ("sym", "sym\n"),
        ("/sym/big", "big\n"),
        ("sym/", "big\ne\\xccvil\\x1b[31m\ngrün e\n"),
        ("sym/..", "dev\ndir\nhard\nsym\n"),
    ):
        assert cfsctl("--repo", repo, "ls", "old", path).stdout == names
        assert cfsctl("--repo", repo, "ls", "-R", "old", path).stdout == (below if ".." in path else names)
    for path in ("none", "hard/", "dir/big/.", "hard/..", "sym/none"):
        assert cfsctl("--repo", repo, "ls", "old", path, status=3).stderr == (
            f"cfsctl: {path} not found (`cfsctl ls old` lists what is at the top of the image)\n"
        )


def test_cat(repo: Path, tmp_path: Path) -> None:
    def the_files(*files: str) -> str:
        return cfsctl("--repo", repo, "cat", "links", *files).stdout

    links = {"abs": "/dir/big", "up": "../../dir/../dir/hop", "dir/hop": "./big", "loop": "loop", "gone": "none"}
    links["l\\x1b[31mq"] = "loop"
    lines = [f"/{name} {len(to)} 120777 1 0 0 0 0.0 {to} - -\n" for name, to in links.items()]
    (tmp_path / "links").write_text(OLD + "/empty 0 100644 1 0 0 0 0.0 - - -\n" + "".join(lines))
    cfsctl("--repo", repo, "create-image", "--from-dump", tmp_path / "links", "links")
    for name in ("dir/big", "//hard", "abs", "up", "sym/big", "/dir/../dir/./big"):
        assert the_files(name) == BIG.decode()
    assert the_files("empty") == ""
    assert the_files("dir/e\udcccvil\x1b[31m", "abs", "empty", "dir/e\udcccvil\x1b[31m") == f"abc{BIG.decode()}abc"
    for name, status, told in (
        ("gone", 3, "gone not found (`cfsctl ls links DIRECTORY` lists what there is)"),
        ("grün", 3, "grün not found (`cfsctl ls links DIRECTORY` lists what there is)"),
        ("dir/big/x", 3, "dir/big/x not found (`cfsctl ls links DIRECTORY` lists what there is)"),
        ("hard/../dir/big", 3, "hard/../dir/big not found (`cfsctl ls links DIRECTORY` lists what there is)"),
        ("hard/", 3, "hard/ not found (`cfsctl ls links DIRECTORY` lists what there is)"),
        ("dir/hop/.", 3, "dir/hop/. not found (`cfsctl ls links DIRECTORY` lists what there is)"),
        ("sym/", 2, "sym/ is not a regular file (`cfsctl ls links /dir` lists it)"),
        ("sym", 2, "sym is not a regular file (`cfsctl ls links /dir` lists it)"),
        ("sym/..", 2, "sym/.. is not a regular file (`cfsctl ls links /` lists it)"),
        ("dev", 2, "dev is not a regular file (`cfsctl ls links /dev` lists it)"),
        ("loop", 3, "loop leads through more than 40 symlinks (`cfsctl ls links DIRECTORY` lists what there is)"),
        (
            "l\x1b[31mq",
            3,
            "l\\x1b[31mq leads through more than 40 symlinks (`cfsctl ls links DIRECTORY` lists what there is)",
        ),
    ):
        refused = cfsctl("--repo", repo, "cat", "links", "abs", name, status=status)
        assert refused.stdout == ""
        assert refused.stderr.endswith(f": {told}\n")
    (repo / "objects" / A[:2] / A[2:]).write_bytes(OTHER)
    assert f"object {A}" in cfsctl("--repo", repo, "cat", "links", "abs", status=5).stderr
    (repo / "objects" / A[:2] / A[2:]).unlink()
    assert A in cfsctl("--repo", repo, "cat", "links", "abs", status=5).stderr


def test_dump_files(repo: Path) -> None:
    lines = OLD.splitlines(keepends=True)
    dumped = cfsctl("--repo", repo, "dump-files", "old", "/dir", "/sym", "hard", "/dir").stdout
    subtree = "".join(lines[2:6])
    assert dumped == subtree + lines[7] + lines[3].replace("/dir/big", "/hard") + subtree
    of_two = ("--backing-path-only", "old", "/hard", b"/dir/e\xccvil\x1b[31m".decode("utf-8", "surrogateescape"))
    paths = cfsctl("--repo", repo, "dump-files", *of_two)
    assert paths.stdout == f"/hard {A[:2]}/{A[2:]}\n/dir/e\\xccvil\\x1b[31m inline\n"
    told = json.loads(cfsctl("--repo", repo, "dump-files", "--json", *of_two).stdout)
    assert [file["backing"] for file in told["files"]] == [f"{A[:2]}/{A[2:]}", None]
    assert [file["path"] for file in told["files"]] == [*of_two[2:]]
    failed = cfsctl("--repo", repo, "dump-files", "--json", "old", "/hard", status=2)
    assert "--json needs --backing-path-only (`cfsctl ls --json` prints all facts of files)" in failed.stderr
    failed = cfsctl("--repo", repo, "dump-files", "--backing-path-only", "old", "/hard", "/dir", status=2)
    assert "/dir is not a regular file" in failed.stderr
    assert failed.stdout == ""


def test_diff(repo: Path) -> None:
    assert cfsctl("--repo", repo, "diff", "old", "new").stdout.splitlines() == [
        "M /dev (mode, owner, device)",
        "M /dir/big (links, xattrs)",
        "M /hard (mode, owner, links, content, xattrs)",
        "+ /new",
        "+ /new/x",
        "- /sym",
        "2 added, 1 removed, 3 changed; 1 object of 300 bytes to fetch",
    ]
    document = json.loads(cfsctl("--repo", repo, "diff", "--json", "old", "new").stdout)
    assert document["added"] == ["/new", "/new/x"]
    assert document["removed"] == ["/sym"]
    assert document["changed"][0] == {"path": "/dev", "fields": ["mode", "owner", "device"]}
    assert document["fetch"] == {"objects": 1, "bytes": 300}


def test_the_dump_of_a_damaged_image_is_refused(repo: Path) -> None:
    [path] = [
        path
        for path in (repo / "objects").rglob("*")
        if path.is_file() and path.resolve() == (repo / "images" / "refs" / "old").resolve()
    ]
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    for command in (["ls", "old"], ["image-objects", "old"], ["dump-files", "old", "/sym"], ["diff", "new", "old"]):
        done = cfsctl("--repo", repo, *command, status=5)
        assert "is damaged" in done.stderr
        assert done.stdout == ""


def test_a_closed_pipe_is_no_error(repo: Path) -> None:
    with subprocess.Popen(
        [CFSCTL, "--repo", repo, "dump-files", "old", *["/dir"] * 5000], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_tree_without_usr_is_refused_before_anything_is_stored(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(bytes(100_000))
    cfsctl("init", "--insecure", tmp_path / "repo")
    refused = cfsctl("--repo", tmp_path / "repo", "create-image", tmp_path / "tree", status=5)
    assert "there is no /usr" in refused.stderr
    assert "--no-propagate-usr-to-root" in refused.stderr
    assert list((tmp_path / "repo").glob("objects/*/*")) == []


@pytest.mark.parametrize("end", [b"", b"end"], ids=["hole", "data"])
def test_the_holes_of_a_file_take_no_room(repo: Path, tmp_path: Path, end: bytes) -> None:
    """As the disk of a virtual machine has them; where files share blocks they never did."""
    size = 64 << 20
    sparse = tmp_path / "tree" / "usr" / "disk"
    with sparse.open("wb") as disk:
        disk.write(b"begin")
        disk.seek(size // 2 + 1)
        disk.write(b"middle")
        disk.truncate(size)
        disk.seek(size)
        disk.write(end)
    cfsctl("--repo", repo, "create-image", tmp_path / "tree")
    [stored] = [path for path in (repo / "objects").glob("*/*") if path.stat().st_size >= size]
    assert stored.read_bytes() == sparse.read_bytes()
    assert stored.stat().st_blocks * 512 < 4 << 20
    cfsctl("--repo", repo, "fsck")


def test_the_holes_of_a_file_need_no_free_space(tmp_path: Path) -> None:
    tree, disk = tmp_path / "tree", tmp_path / "disk"
    disk.mkdir()
    tree.mkdir()
    with (tree / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    with mounted(disk, "-t", "tmpfs", "-o", "size=8m", "tmpfs"):
        cfsctl("init", "--insecure", disk / "repo")
        cfsctl("--repo", disk / "repo", "create-image", "--no-propagate-usr-to-root", tree)
        stored = [path.stat() for path in (disk / "repo" / "objects").glob("*/*")]
        assert [each.st_blocks for each in stored if each.st_size == 1 << 30] == [0]
