"""Archives that GNU tar, bsdtar, Python and Go write of a directory give its files, and come back byte for byte."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from composefs_ext.errors import FormatError
from composefs_oci.filesystem import Directory, Node
from composefs_oci.formats.tar.entries import shown
from support.commands import CFSCTL, cfsctl
from support.oci_images import init, pull
from support.oci_layers import Layers
from support.oci_layout import Layout, digest, tar
from support.oci_made import Containers, Umoci, change, fill
from support.peers import require

GNU = {
    "v7": ("--format=v7",),
    "oldgnu": ("--format=oldgnu",),
    "gnu": ("--format=gnu",),
    "gnu sparse": ("--format=gnu", "--sparse"),
    "ustar": ("--format=ustar",),
    "pax": ("--format=pax",),
    "pax sparse 0.0": ("--format=pax", "--sparse", "--sparse-version=0.0"),
    "pax sparse 0.1": ("--format=pax", "--sparse", "--sparse-version=0.1"),
    "pax sparse 1.0": ("--format=pax", "--sparse", "--sparse-version=1.0"),
    "blocking factor": ("--format=gnu", "-b", "77"),
}
BSD = {
    "bsd v7": ("--format=v7",),
    "bsd ustar": ("--format=ustar",),
    "bsd gnutar": ("--format=gnutar",),
    "bsd pax": ("--format=pax",),
    "bsd restricted pax": ("--format=paxr",),
}
SHORT_NAMES = ("v7", "bsd v7")
USTAR = (*SHORT_NAMES, "ustar", "bsd ustar")


def make_tree(root: Path, style: str) -> None:
    root.mkdir()
    (root / "usr").mkdir(mode=0o755)
    (root / "usr/bin").mkdir(mode=0o2755)
    for size in (0, 1, 63, 64, 65, 511, 512, 513, 4096, 300_001):
        (root / f"usr/bin/size{size}").write_bytes(os.urandom(size))
    (root / "usr/bin/size513").chmod(0o4711)
    os.link(root / "usr/bin/size65", root / "usr/hard")
    os.symlink("bin/size1", root / "usr/link")
    if style not in SHORT_NAMES:
        os.mkfifo(root / "usr/fifo")
    with (root / "usr/sparse").open("wb") as file:
        for number in range(60):  # more pieces than a header has room for, and than one more block has
            file.seek(number * 200_000 + 4096 * 9)
            file.write(bytes([number + 1]) * 4096)
        file.truncate(20_000_000)
    with (root / "usr/holes").open("wb") as file:
        file.truncate(70_000)
    if style not in SHORT_NAMES:
        long = root / "usr" / ("d" * 90)
        long.mkdir()
        (long / ("f" * 90)).write_bytes(b"ustar has a prefix for this")
    if style not in USTAR:
        deep = root / "usr" / ("e" * 200)
        deep.mkdir()
        (deep / ("g" * 200)).write_bytes(b"x" * 100)
        os.link(deep / ("g" * 200), deep / "hard")
        os.symlink("t" * 1000, deep / "symlink")
        (root / "usr/\u00fc \udcff \n").write_bytes(b"no ASCII")
    for number, path in enumerate(sorted(root.rglob("*"))):
        time = 1_600_000_000_000_000_000 + number * 1_234_567_890
        os.utime(path, ns=(time, time), follow_symlinks=False)


def check(node: Node, path: Path, layers: Layers, *, fractions: bool) -> None:
    """Compare an inode with a file."""
    info = path.lstat()
    assert node.mode == info.st_mode, path
    assert (node.uid, node.gid) == (info.st_uid, info.st_gid), path
    seconds, nanoseconds = divmod(info.st_mtime_ns, 10**9)
    assert node.mtime[0] == seconds, path
    # Restricted pax has fractions only where there is another reason for a pax header.
    assert node.mtime[1] == nanoseconds or (not fractions and node.mtime[1] == 0), path
    if stat.S_ISREG(info.st_mode):
        content = layers.objects[node.content] if isinstance(node.content, str) else node.content
        assert node.size == info.st_size == len(content), path
        assert content == path.read_bytes(), path
        assert isinstance(node.content, str) == (info.st_size > 64), path
    elif stat.S_ISLNK(info.st_mode):
        assert node.target == os.fsencode(os.readlink(path))


def compare(layers: Layers, root: Path, *, fractions: bool) -> None:
    inodes: dict[int, Node] = {}
    pending = [(layers.filesystem().root, root)]
    count = 0
    for directory, path in pending:
        assert {os.fsdecode(name) for name in directory.children} == set(os.listdir(path)), shown(bytes(path))
        for name, node in directory.children.items():
            below = path / os.fsdecode(name)
            check(node, below, layers, fractions=fractions)
            assert inodes.setdefault(below.lstat().st_ino, node) is node, "hard links are one inode"
            count += 1
            if isinstance(node, Directory):
                pending.append((node, below))
    assert count == len(list(root.rglob("*")))
    assert len({id(node) for node in inodes.values()}) == len(inodes)


def write(root: Path, style: str, archive: Path, *options: str) -> bytes:
    """Make an archive of a tree; return its bytes."""
    program = require("tar" if style in GNU else "bsdtar")
    # UTF-8, or bsdtar has no words for names outside of ASCII.
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    argv = [program, "-cf", archive, *(GNU | BSD)[style], *options, "-C", root, "usr"]
    subprocess.run(argv, check=True, env=environment)
    return archive.read_bytes()


@pytest.mark.parametrize("style", [*GNU, *BSD])
def test_a_directory(tmp_path: Path, style: str) -> None:
    root = tmp_path / "tree"
    make_tree(root, style)
    data = write(root, style, tmp_path / "archive.tar")
    layers = Layers(tmp_path)
    layers.add(data, piece=10_000)
    assert layers.archive() == data
    compare(layers, root, fractions="pax" in style and style != "bsd restricted pax")
    if "sparse" in style:
        assert len(data) < 2_000_000
        assert layers.unpacked[0].expanded


def test_the_command_gives_back_what_tar_programs_wrote(tmp_path: Path) -> None:
    """``oci layer`` writes each archive of an image that has one in each format."""
    trees = {}
    for kind in ("v7", "ustar", "pax"):
        trees[kind] = tmp_path / kind
        make_tree(trees[kind], kind)
    archives = []
    for style in (*GNU, *BSD):
        kind = "v7" if style in SHORT_NAMES else "ustar" if style in USTAR else "pax"
        whole = () if "sparse" in style else ("--exclude=usr/sparse",)
        archives.append(write(trees[kind], style, tmp_path / "archive.tar", *whole))
    for kind, python in (("ustar", tarfile.USTAR_FORMAT), ("pax", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        with tarfile.open(tmp_path / "python.tar", mode="w", format=python, errors="surrogateescape") as archive:
            archive.add(trees[kind] / "usr", "usr", filter=lambda info: None if "sparse" in info.name else info)
        archives.append((tmp_path / "python.tar").read_bytes())
    layout = Layout()
    layout.add(layout.image(*archives))
    repo = init(tmp_path / "repo")
    pull(repo, f"oci:{layout.write(tmp_path / 'layout')}", "app")
    for archive in archives:
        assert layer(repo, digest(archive)) == archive


def test_the_command_gives_back_what_go_wrote(tmp_path: Path) -> None:
    """umoci and buildah write archives with Go; their configs say the digests."""
    umoci = Umoci(tmp_path / "umoci")
    umoci.new("app")
    fill(umoci.unpack("app", tmp_path / "bundle"))
    umoci.repack("app", tmp_path / "bundle")
    change(umoci.unpack("app", tmp_path / "again"))
    umoci.repack("app", tmp_path / "again")
    containers = Containers(tmp_path / "storage")
    container = containers.buildah("from", "scratch")
    fill(Path(containers.buildah("mount", container)))
    containers.buildah("commit", "--quiet", container, "app")
    containers.buildah("push", "--quiet", "app", f"oci:{tmp_path}/buildah:app")
    repo = init(tmp_path / "repo")
    for name, count in (("umoci", 2), ("buildah", 1)):
        pull(repo, f"oci:{tmp_path}/{name}:app", name)
        config = json.loads(cfsctl("--repo", repo, "oci", "inspect", "--config", name).stdout)
        diff_ids = config["rootfs"]["diff_ids"]
        assert len(diff_ids) == count
        for diff_id in diff_ids:
            assert digest(layer(repo, diff_id)) == diff_id


def layer(repo: Path, diff_id: str) -> bytes:
    """What the installed command writes."""
    return subprocess.run([CFSCTL, "--repo", repo, "oci", "layer", diff_id], check=True, stdout=subprocess.PIPE).stdout


@pytest.mark.parametrize("size", [10, 100, 511, 512])
@pytest.mark.parametrize("piece", [1, 512, 10_000])
def test_an_archive_that_ends_with_its_last_content(tmp_path: Path, size: int, piece: int) -> None:
    """So ``umoci insert`` writes it: neither padding nor zero blocks."""
    data = tar(a=b"first" * 100, b=b"x" * size)
    end = data.rindex(b"x") + 1
    layers = Layers(tmp_path)
    layers.add(data[:end], piece=piece)
    assert layers.archive() == data[:end]
    assert layers.dump() == once(tmp_path, data)
    with pytest.raises(FormatError, match="ends within an entry"):
        layers.add(data[: end - 1], piece=piece)


def once(directory: Path, data: bytes) -> bytes:
    """The tree of one archive."""
    layers = Layers(directory)
    layers.add(data)
    return layers.dump()
