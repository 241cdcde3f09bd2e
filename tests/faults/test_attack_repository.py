"""Repositories that somebody has tampered with: refused in one line, without waiting, and never emptied by mistake."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from composefs.digest import SHA256
from composefs.erofs.layout import SLOT
from composefs.linux.files import remove_tree
from composefs.repository import Repository
from composefs.repository.publication import ImageName, Publication, RefUpdate, StreamName
from composefs.splitstream.frame import compressor
from composefs.splitstream.layout import MAX_CHUNKS, MAX_INLINE, MAX_REFERENCES
from support.commands import CFSCTL, cfsctl, limit_memory, one_line
from support.images import Patch, make_image
from support.mounts import mounted
from support.nested import nest
from support.oci_images import init, pull
from support.oci_layout import simple
from support.ostree_pull import Target, extensions  # noqa: F401  a fixture
from support.ostree_repo import BRANCH, commit, make_repo, make_tree
from support.populated import Populated, populate
from support.splitstreams import stream_of


@pytest.fixture
def populated(tmp_path: Path) -> Populated:
    return populate(tmp_path / "repo")


def as_symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def as_fifo(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    os.mkfifo(path)


@pytest.mark.parametrize("change", [as_symlink, as_fifo])
@pytest.mark.parametrize("top", ["streams", "images"])
def test_refs_that_are_no_directory_are_no_empty_repository(
    populated: Populated, top: str, change: Callable[[Path], None]
) -> None:
    change(populated.path / top / "refs")
    objects = populated.ids()
    refused = one_line(cfsctl("--repo", populated.path, "gc", status=5))
    problems = f"{top}/refs: it is not a directory; {top}/elsewhere: it is not a symlink"
    assert f": {problems} (move what is there away, and what belongs there to its place)" in refused
    assert populated.ids() == objects
    assert f"{top}/refs: it is not a directory" in cfsctl("--repo", populated.path, "fsck", status=1).stdout
    assert f"{top}/refs is not a directory" in one_line(cfsctl("--repo", populated.path, "ref", "list", status=5))


@pytest.mark.parametrize("change", [as_symlink, as_fifo])
@pytest.mark.parametrize("top", ["objects", "streams", "images", "staging"])
def test_a_top_directory_that_is_none(populated: Populated, top: str, change: Callable[[Path], None]) -> None:
    (populated.path / "staging").mkdir(exist_ok=True)
    change(populated.path / top)
    refused = one_line(cfsctl("--repo", populated.path, "gc", status=5))
    assert f"{populated.path / top} is not a directory (it must be one, and no symlink; move what is there" in refused
    if top != "staging":  # where nothing is that is read
        assert one_line(cfsctl("--repo", populated.path, "fsck", status=5)) == refused


@pytest.mark.parametrize("content", [b"\0\x1b[2J", b"[" * 50_000, b'{"version": 1}', bytes(1 << 21)])
def test_a_malformed_meta_json_is_named_with_a_remedy(populated: Populated, content: bytes) -> None:
    (populated.path / "meta.json").unlink()
    (populated.path / "meta.json").write_bytes(content)
    refused = one_line(cfsctl("--repo", populated.path, "images", status=5))
    assert f"cfsctl: {populated.path}/meta.json: " in refused
    assert "put its meta.json back" in refused


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_device_without_driver(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, 249))


@pytest.mark.parametrize(
    "make",
    [make_fifo, make_socket, make_device, Path.mkdir, pytest.param(make_device_without_driver, marks=pytest.mark.root)],
)
def test_an_object_or_meta_json_that_is_no_file(populated: Populated, make: Callable[[Path], None]) -> None:
    image = populated.object(populated.alone)
    image.unlink()
    make(image)
    for command in (("image-objects", "refs/os/1"), ("du",), ("ls", "os/1")):
        refused = one_line(cfsctl("--repo", populated.path, *command, status=5))
        assert f"object {populated.alone} is damaged: it is" in refused
        assert "cfsctl fsck --repair" in refused
    told = "object-open-failed" if image.is_symlink() else "unexpected-file-type"
    where = f"objects/{image.parent.name}/{image.name}"
    assert f"fsck: {told}: {where}: " in cfsctl("--repo", populated.path, "fsck", status=1).stdout
    meta = populated.path / "meta.json"
    meta.unlink()
    make(meta)
    assert f"{meta}: it is" in one_line(cfsctl("--repo", populated.path, "images", status=5))


@pytest.mark.root
def test_a_device_where_the_mount_has_none_is_not_forbidden_but_damage(tmp_path: Path) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "-o", "nodev", "tmpfs"):
        populated = populate(tmp_path / "repo")
        image = populated.object(populated.alone)
        image.unlink()
        make_device_without_driver(image)
        refused = one_line(cfsctl("--repo", populated.path, "ls", "os/1", status=5))
        assert f"object {populated.alone} is damaged: it is not a regular file" in refused


def as_loop(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.name)


def as_file(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.touch()


@pytest.mark.parametrize("change", [as_loop, as_file])
def test_a_directory_of_objects_that_is_none(populated: Populated, change: Callable[[Path], None]) -> None:
    repository = ("--repo", populated.path)
    image, stream, file = populated.alone, populated.top, populated.files["one"]
    for object_id, *command in (
        (image, "image-objects", "refs/os/1"),
        (image, "ls", "os/1"),
        (image, "diff", "os/1", populated.inner),
        (stream, "cat", "top"),
        (stream, "du"),
        (file, "du"),
        (file, "create-image", "--no-propagate-usr-to-root", populated.path / "tree"),
    ):
        (populated.path / "tree").mkdir(exist_ok=True)
        (populated.path / "tree/one").write_bytes(b"one" * 100)
        place = populated.object(object_id).parent
        change(place)
        refused = one_line(cfsctl(*repository, *command, status=5))
        assert f"objects/{place.name} is not a directory" in refused
        assert "move what is there away" in refused
        assert f"objects/{place.name}: it is not named as an object is" in cfsctl(*repository, "fsck", status=1).stdout
        place.unlink()
        place.with_name("elsewhere").rename(place)
    cfsctl(*repository, "fsck")


@pytest.mark.parametrize("name", ["streams/odd", f"images/{'0' * 64}"])
def test_a_name_of_another_shape_is_to_be_moved_away(populated: Populated, name: str) -> None:
    """`ref remove` takes it for no ref, and there is nothing that `fsck --repair` could bring back."""
    odd = populated.path / name
    odd.symlink_to("../elsewhere")
    refused = one_line(cfsctl("--repo", populated.path, "gc", status=5))
    assert f"{name} points to '../elsewhere', which is no object (move what is there away" in refused
    odd.unlink()
    cfsctl("--repo", populated.path, "gc")


def test_a_symlink_that_leads_to_itself_in_the_place_of_an_object(populated: Populated) -> None:
    image = populated.object(populated.alone)
    image.unlink()
    image.symlink_to(image.name)
    refused = one_line(cfsctl("--repo", populated.path, "image-objects", "refs/os/1", status=5))
    assert f"object {populated.alone} is damaged: it is a symlink" in refused


@pytest.mark.parametrize("what", ["object", "directory"])
@pytest.mark.parametrize("change", [as_loop, as_fifo])
def test_damage_where_there_is_no_meta_json_is_told_by_fsck(
    populated: Populated, what: str, change: Callable[[Path], None]
) -> None:
    """The first object speaks for the whole repository then, and what is damaged is none."""
    (populated.path / "meta.json").unlink()
    first = populated.object(min(populated.ids()))
    change(first if what == "object" else first.parent)
    cfsctl("--repo", populated.path, "images")
    damaged = f"objects/{first.parent.name}" + (f"/{first.name}: " if what == "object" else ": ")
    assert damaged in cfsctl("--repo", populated.path, "fsck", status=1).stdout


def test_a_directory_in_the_place_of_an_object(populated: Populated, tmp_path: Path) -> None:
    good = populate(tmp_path / "good").path
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/one").write_bytes(b"one" * 100)
    repository = ("--repo", populated.path)
    stuck = sorted([populated.files["one"], populated.files["two"]])
    for place in map(populated.object, stuck):
        place.unlink()
        place.mkdir()
    others = sorted(populated.live - set(stuck))
    for other in map(populated.object, others):
        other.unlink()
    create = (*repository, "create-image", "--no-propagate-usr-to-root", tmp_path / "tree")
    refused = one_line(cfsctl(*create, status=5))
    assert f"object {populated.files['one']} is damaged: it is a directory (move that away" in refused
    repair = (*repository, "fsck", "--repair", "--from", good)
    done = cfsctl(*repair, "--json", status=5)
    report = json.loads(done.stdout)
    assert (report["ok"], sorted(report["repaired"])) == (False, others)
    damaged = ", ".join(f"object {each} is damaged: it is a directory" for each in stuck)
    assert done.stderr == f"cfsctl: {damaged} (move that away, and run the command again)\n"
    again = cfsctl(*repair, status=5)
    assert again.stderr == done.stderr
    assert again.stdout.count("fsck: unexpected-file-type: ") == 2
    for place in map(populated.object, stuck):
        place.rmdir()
    cfsctl(*repair)
    cfsctl(*repository, "fsck")


@pytest.mark.parametrize("damage", [lambda size: b"", bytes, lambda size: b"\xff" * size], ids=["empty", "zero", "set"])
@pytest.mark.usefixtures("extensions")
def test_the_stream_of_a_held_commit_is_pulled_again_when_it_is_damaged(
    tmp_path: Path, damage: Callable[[int], bytes]
) -> None:
    make_tree(tmp_path / "tree")
    source = make_repo(tmp_path / "source")
    commit(source, tmp_path / "tree")
    target = Target(tmp_path / "target")
    stream = target.json("pull-local", source, BRANCH)["verity"]
    names = target.names()
    path = target.path / "objects" / stream[:2] / stream[2:]
    good = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(len(good)))
    done = target.ostree("pull-local", source, BRANCH)
    assert f"is pulled again: object {stream} is damaged" in done.stderr
    assert done.stderr.count("\n") == 1
    assert path.read_bytes() == good
    path.unlink()
    target.ostree("pull-local", source, BRANCH)
    assert path.read_bytes() == good
    assert target.names() == names
    cfsctl("--repo", target.path, "fsck")


def compressed(data: bytes) -> bytes:
    frame = compressor()
    return frame.compress(data) + frame.flush()


@pytest.mark.parametrize("name", [f"ostree-commit-{'ab' * 32}", f"ostree-partial-{'ab' * 32}"])
@pytest.mark.usefixtures("extensions")
def test_the_stream_of_a_commit_that_has_no_bytes(tmp_path: Path, name: str) -> None:
    """But an object, which has none either: as the next minus 0 bytes and object 0 are written the same."""
    target = Target(tmp_path / "target")
    content_type = 0xAFE138C18C463EF1 if "commit" in name else 0x6F73747061727431
    with Repository.open(target.path, writable=True) as repository:
        empty = repository.objects.store_parts([b""]).id
        stream = stream_of(SHA256, content_type=content_type, object_refs=[empty], chunks=[0])
        stored = repository.objects.store_parts([stream])
        repository.publish(
            Publication(streams=[StreamName(name, stored.id)], refs=[RefUpdate("ostree/odd", name, "flat")])
        )
    for command in ("inspect", "log", "dump"):
        refused = one_line(target.ostree(command, "odd", status=5))
        assert f"stream {name} is not laid out as an ostree commit" in refused
    assert "is not laid out as an ostree commit" in target.ostree("fsck", status=1).stdout


@pytest.mark.usefixtures("extensions")
def test_a_commit_object_that_is_alone_is_checked(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree")
    source = make_repo(tmp_path / "source")
    commit_id = commit(source, tmp_path / "tree")
    target = Target(tmp_path / "target")
    target.ostree("pull-local", source, BRANCH, "--commit-metadata-only")
    name = f"ostree-partial-{commit_id}"
    with Repository.open(target.path, writable=True) as repository:
        with repository.streams.open(repository.streams.resolve(name)) as reader:
            data = bytearray(b"".join(data for _, data in reader.chunks()))
        data[-20] ^= 1  # before the tail, which names the paths that are here
        stream = stream_of(SHA256, content_type=0x6F73747061727431, inline=bytes(data), chunks=[-len(data)])
        stored = repository.objects.store_parts([stream])
        repository.publish(Publication(streams=[StreamName(name, stored.id, if_exists="replace")]))
    cfsctl("--repo", target.path, "fsck")
    assert f"commit {commit_id} has another checksum" in target.ostree("fsck", status=1).stdout


def put_stream(
    path: Path,
    *,
    objects: bytes = b"",
    named: bytes = b"",
    chunks: bytes = b"",
    size: int = 0,
    name_frame: bytes | None = None,
    chunk_frame: bytes | None = None,
) -> None:
    """Store a splitstream of these parts, before they are compressed or as frames, and name it."""
    good = stream_of(SHA256, content_type=1)
    fixed = 32 + 80
    parts = [bytes(32), objects, name_frame or compressed(named), chunk_frame or compressed(chunks)]
    ranges, start = [], fixed
    for part in parts:
        ranges.append((start, start + len(part)))
        start += len(part)
    references, objects_range, names, stream = ranges
    info = struct.pack("<10Q", *references, *objects_range, *stream, *names, 1, size)
    with Repository.open(path, writable=True) as repository:
        stored = repository.objects.store_parts([good[:32] + info + b"".join(parts)])
        repository.publish(Publication(streams=[StreamName("bad", stored.id, if_exists="replace")]))


def test_streams_are_named_with_what_is_wrong_in_them(populated: Populated) -> None:
    put_stream(populated.path, chunks=struct.pack("<q", -5) + b"hello", size=6)
    refused = cfsctl("--repo", populated.path, "cat", "bad", status=5)
    assert refused.stderr == "cfsctl: stream bad: the stream has 5 bytes, its size says 6\n"
    put_stream(populated.path, chunks=struct.pack("<q", -(1 << 63)) + b"hello", size=(1 << 63) - 1)
    assert "cfsctl: stream bad: the stream" in cfsctl("--repo", populated.path, "cat", "bad", status=5).stderr


def test_millions_of_compressed_names_cost_no_memory(populated: Populated) -> None:
    named = b"".join([b"0:%d\0" % number for number in range(4_000_000)])
    put_stream(populated.path, named=named)
    done = cfsctl("--repo", populated.path, "fsck", status=1, preexec_fn=limit_memory)
    assert "more than 100000 named references" in done.stdout


def test_millions_of_references_cost_no_memory(populated: Populated) -> None:
    """4,000,000 objects that are not there, the most that a stream may name."""
    put_stream(populated.path, objects=b"".join([number.to_bytes(32) for number in range(MAX_REFERENCES)]))
    repo = ("--repo", populated.path)
    done = cfsctl(*repo, "fsck", status=1, preexec_fn=limit_memory)
    assert "streams/bad: 3999000 more objects are missing" in done.stdout
    assert done.stdout.count("missing-object-ref") == 1001
    assert "affected streams: 1\n  bad\n" in done.stdout
    with Repository.open(populated.path, writable=True) as repository:
        repository.publish(Publication(refs=[RefUpdate("kept/bad", "bad", "flat")]))
    cfsctl(*repo, "gc", preexec_fn=limit_memory)
    assert populated.garbage not in populated.ids()


def test_billions_of_compressed_chunks_are_not_read(populated: Populated) -> None:
    """80 kB that unpack to 328 million references of one object: fsck would take half an hour, for 8 MB two days."""
    with Repository.open(populated.path, writable=True) as repository:
        empty = repository.objects.store_parts([]).id
    zeros = struct.pack("<I", 131072 << 3 | 1 << 1)[:3] + b"\0"  # a block of 128 KiB
    frame = b"\x28\xb5\x2f\xfd\0\x58" + 20_000 * zeros + b"\x01\0\0"
    put_stream(populated.path, objects=bytes.fromhex(empty), chunk_frame=frame)
    done = cfsctl("--repo", populated.path, "fsck", status=1)
    assert f"stream-read-failed: streams/bad: the stream has more than {MAX_CHUNKS} chunks" in done.stdout


def test_inline_bytes_without_end_are_not_read(populated: Populated) -> None:
    put_stream(populated.path, chunks=struct.pack("<q", -(1 << 62)) + bytes(1 << 20), size=1 << 62)
    done = cfsctl("--repo", populated.path, "fsck", status=1)
    assert f"stream-read-failed: streams/bad: the stream has more than {MAX_INLINE} inline bytes" in done.stdout


@pytest.mark.parametrize(("status", "command"), [(5, ["gc"]), (1, ["fsck", "--metadata-only"])])
def test_a_hole_is_not_read_as_millions_of_empty_blocks(populated: Populated, status: int, command: list[str]) -> None:
    """A file of 60 GiB that is one hole takes nothing on the disk, and would be walked for hours."""
    put_stream(populated.path, name_frame=b"\x28\xb5\x2f\xfd\0\x58" + bytes(8 << 20))
    with Repository.open(populated.path, writable=True) as repository:
        repository.publish(Publication(refs=[RefUpdate("kept/bad", "bad", "flat")]))
    done = cfsctl("--repo", populated.path, *command, status=status)
    assert "the zstd frame has an empty block before its last" in done.stdout + done.stderr


def make_deep(path: Path, levels: int) -> None:
    """Make directories with names of 200 bytes below each other."""
    (path / "usr").mkdir(parents=True)
    fd = os.open(path / "usr", os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 200, dir_fd=fd)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def test_the_image_of_a_deep_tree_costs_no_memory_and_keeps_no_garbage(populated: Populated, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_deep(tree, 2000)
    try:
        cfsctl("--repo", populated.path, "create-image", tree, "deep", preexec_fn=limit_memory)
        with open("/dev/null", "wb") as null:
            listing: list[str | Path] = ["--repo", populated.path, "ls", "-R", "deep"]
            for command in (["--no-repo", "create-dumpfile", tree], listing, [*listing, "--json"]):
                subprocess.run([CFSCTL, *command], stdout=null, check=True, preexec_fn=limit_memory)
    finally:
        subprocess.run(["rm", "-rf", tree], check=True)
    cfsctl("--repo", populated.path, "fsck")
    cfsctl("--repo", populated.path, "gc")
    assert populated.garbage not in populated.ids()


def test_a_directory_below_itself_is_not_listed_without_end(populated: Populated) -> None:
    lines = [f"{path} 0 40755 2 0 0 0 0.0 - - -" for path in ("/d", "/d/e", "/d/e/g")]
    patch = Patch(make_image(*lines))
    patch.put(patch.dirent(patch.inode("/d/e"), "g"), "<Q", patch.inode("/d") // SLOT)
    with Repository.open(populated.path, writable=True) as repository:
        image = repository.images.put([bytes(patch.image)]).id
        repository.publish(Publication(images=[ImageName(image)]))
    assert cfsctl("--repo", populated.path, "ls", image).stdout == "d\n"
    assert "a directory with two names" in one_line(cfsctl("--repo", populated.path, "ls", "-R", image, status=5))


@pytest.mark.root
def test_a_repository_on_several_file_systems(populated: Populated, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/new").write_bytes(b"new" * 100)
    store = ("--repo", populated.path, "create-image", "--no-propagate-usr-to-root", tmp_path / "tree")
    for name in ("objects", "streams", "images"):
        place = populated.path / name
        with mounted(place, "--bind", "-o", "ro", str(place)):
            refused = one_line(cfsctl(*store, status=7))
        assert f"{place} is on a read-only file system (remount" in refused
    staging = populated.path / "staging"
    staging.mkdir(exist_ok=True)
    with mounted(staging, "-t", "tmpfs", "tmpfs"):
        refused = one_line(cfsctl(*store, status=1))
    assert "has to be on one file system: see with findmnt" in refused
    assert "on btrfs none of the directories in it may be a subvolume" in refused
    cfsctl(*store)


VAST = 1 << 43
"""Bytes of a hole that would be read for hours."""


def test_a_vast_hole_in_the_place_of_an_object(populated: Populated, tmp_path: Path) -> None:
    """Its digest is computed at once, and is not the object's."""
    place = populated.object(populated.top)
    place.chmod(0o644)
    os.truncate(place, VAST)
    done = cfsctl("--repo", populated.path, "fsck", status=1)
    assert f"object-digest-mismatch: objects/{populated.top[:2]}/{populated.top[2:]}" in done.stdout
    assert populated.top in one_line(cfsctl("--repo", populated.path, "gc", status=5))
    assert populated.top in one_line(cfsctl("--repo", populated.path, "cat", "top", status=5))
    good = populate(tmp_path / "good")
    done = cfsctl("--repo", populated.path, "fsck", "--repair", "--from", good.path)
    assert "repaired objects: 1" in done.stdout


def as_hole(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, VAST)


@pytest.mark.parametrize(
    ("change", "reason"), [(as_fifo, "it is not a regular file"), (as_hole, f"it has {VAST} bytes")]
)
@pytest.mark.usefixtures("extensions")
def test_an_extension_waits_for_no_object(tmp_path: Path, change: Callable[[Path], None], reason: str) -> None:
    target = Target(tmp_path / "target")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/one").write_bytes(b"one" * 1000)
    target.ostree("commit", f"--tree=dir={tmp_path / 'tree'}", f"--branch={BRANCH}")
    [one] = cfsctl("--repo", target.path, "image-objects", f"ostree/{BRANCH}").stdout.split()
    one = one.rpartition(":")[2]
    change(target.path / "objects" / one[:2] / one[2:])
    assert f"object {one} is damaged: {reason}" in target.ostree("fsck", status=1).stdout
    refused = one_line(target.ostree("export", BRANCH, tmp_path / "exported", status=5))
    assert f"object {one} is damaged: {reason}" in refused
    assert "cfsctl fsck --repair --from REPO" in refused


@pytest.mark.parametrize(
    ("change", "found"), [(as_fifo, "is damaged: it is not a regular file"), (as_hole, "mismatch")]
)
@pytest.mark.usefixtures("extensions")
def test_an_extension_waits_for_no_object_of_a_layer(
    tmp_path: Path, change: Callable[[Path], None], found: str
) -> None:
    layout = simple()
    repo = init(tmp_path / "repo")
    pull(repo, f"oci:{layout.write(tmp_path / 'layout')}", "app")
    objects = cfsctl("--repo", repo, "image-objects", "oci/app").stdout.split()
    one = objects[0].rpartition(":")[2]
    change(repo / "objects" / one[:2] / one[2:])
    report = cfsctl("--repo", repo, "oci", "fsck", status=1).stdout
    assert any(line.startswith("  - fsck: layer-") and found in line for line in report.splitlines()), report


def test_a_vast_hole_where_objects_are_looked_for(populated: Populated, tmp_path: Path) -> None:
    good = populate(tmp_path / "good")
    os.truncate(good.path / "meta.json", VAST)
    (populated.object(populated.top)).unlink()
    done = cfsctl("--repo", populated.path, "fsck", "--repair", "--from", good.path)
    assert "repaired objects: 1" in done.stdout


@contextlib.contextmanager
def nested(path: Path, levels: int) -> Iterator[None]:
    """Have directories below each other, for as long as the context lasts."""
    path.mkdir(parents=True)
    nest(path, levels)
    try:
        yield
    finally:
        fd = os.open(path.parent, os.O_RDONLY)
        remove_tree(path.name, fd)
        os.close(fd)


@pytest.mark.parametrize("top", ["images", "streams"])
def test_refs_in_thousands_of_directories(populated: Populated, top: str) -> None:
    """They are told, and keep nobody from listing the others."""
    place = "/".join([top, "refs/deep", *"d" * 64])
    with nested(populated.path / top / "refs/deep", 4000):
        checked = cfsctl("--repo", populated.path, "fsck", status=1)
        refused = one_line(cfsctl("--repo", populated.path, "gc", status=5))
        listed = cfsctl("--repo", populated.path, "ref", "list")
    assert f"fsck: entry-not-symlink: {place}: it is below 64 directories" in checked.stdout
    assert f"{place}: it is below 64 directories (move what is there away" in refused
    assert "os/1" in listed.stdout
    assert "oci/team/app:1" in listed.stdout
    assert listed.stderr.startswith(f"cfsctl: left out: {place} is below 64 directories")


def test_thousands_of_directories_where_objects_are_looked_for(populated: Populated, tmp_path: Path) -> None:
    with nested(tmp_path / "other/deep", 1500):
        populated.object(populated.top).rename(tmp_path / "other/deep/d/d/d/there")
        done = cfsctl("--repo", populated.path, "fsck", "--repair", "--from", tmp_path / "other")
    assert "repaired objects: 1" in done.stdout
