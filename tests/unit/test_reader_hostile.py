"""Images that lie: each is one FormatError with the offset, soon, whoever reads."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256
from composefs.erofs.layout import BLOCK, DIRENT, MAX_IMAGE, SLOT, SUPERBLOCK_START
from composefs.erofs.reader import Image, Lookup, ReadRules, read_objects, read_tree
from composefs.erofs.reader import attributes as reader_attributes
from composefs.erofs.reader import image as reader_image
from composefs.errors import FormatError, NotFoundError, TooLargeError
from composefs.tree import Node, Tree, walk
from support.images import DIGEST, Patch, make_image

LINES = (
    "/d 0 40755 2 0 0 0 0.0 - - - user.d=e",
    "/d/e 0 40755 2 0 0 0 0.0 - - -",
    f"/d/f 99 100644 2 0 0 0 0.0 - - {DIGEST} user.only=here",
    "/g 0 @100644 - - - - - /d/f - -",
    "/h 4 100644 1 0 0 0 0.0 - text - user.s=shared",
    "/l 6 120777 1 0 0 0 0.0 target - - user.s=shared",
    "/n 0 20644 1 0 0 259 0.0 - - -",
)


def patched(change: Callable[[Patch], object]) -> bytes:
    patch = Patch(make_image(*LINES))
    change(patch)
    return bytes(patch.image)


def entry(path: str) -> Callable[[Patch], int]:
    """Finds the directory entry of a path."""
    directory, _, name = path.rpartition("/")
    return lambda patch: patch.dirent(patch.inode(directory), name)


def set_nid(path: str, target: str) -> Callable[[Patch], object]:
    return lambda patch: patch.put(entry(path)(patch), "<Q", patch.inode(target) // SLOT)


def set_inode(path: str, field: int, form: str, value: int) -> Callable[[Patch], object]:
    return lambda patch: patch.put(patch.inode(path) + field, form, value)


def set_name(path: str, name: bytes) -> Callable[[Patch], object]:
    def change(patch: Patch) -> None:
        directory, _, old = path.rpartition("/")
        start, _ = patch.tail(patch.inode(directory))
        (offset,) = struct.unpack_from("<H", patch.image, entry(path)(patch) + 8)
        assert len(name) == len(old)
        patch.image[start + offset : start + offset + len(name)] = name

    return change


def superblock(offset: int, form: str, value: int) -> Callable[[Patch], object]:
    return lambda patch: patch.put(SUPERBLOCK_START + offset, form, value)


FORMAT, COUNT, MODE, SIZE, PLACE, NANOSECONDS, LINKS = 0, 2, 4, 8, 16, 40, 44
"""Offsets in an extended inode."""

FAULTS: dict[str, tuple[str, Callable[[Patch], object]]] = {
    "no superblock": ("no EROFS superblock", superblock(0, "<I", 0)),
    "other block size": ("blocks of", superblock(12, "<B", 9)),
    "larger directory blocks": ("blocks of", superblock(90, "<B", 1)),
    "unknown feature": ("unknown features", superblock(80, "<I", 0x80)),
    "cut off": ("blocks, but the file has", superblock(36, "<I", 1000)),
    "time of the superblock": ("nanoseconds", superblock(32, "<I", 10**9)),
    "header of another kind": ("header", lambda patch: patch.put(4, "<I", 2)),
    "unknown format": ("unknown", lambda patch: patch.put(12, "<I", 3)),
    "root beyond the end": ("there is no inode", superblock(14, "<H", 65535)),
    "root that is no directory": (
        "not a directory",
        lambda patch: patch.put(SUPERBLOCK_START + 14, "<H", patch.inode("/h") // SLOT),
    ),
    "metadata beyond the end": ("there is no inode", superblock(40, "<I", 0xFFFFFFFF)),
    "inode beyond the end": ("there is no inode", lambda patch: patch.put(entry("/h")(patch), "<Q", 2**63)),
    "directory in itself": ("directory with two names", set_nid("/d/e", "/d")),
    "root in a directory": ("directory with two names", set_nid("/d/e", "/")),
    "wrong dot": (". is not", set_nid("/d/.", "/")),
    "wrong dots": (r"\.\. is not", set_nid("/d/..", "/d")),
    "wrong dots of the root": (r"\.\. is not", set_nid("/..", "/d")),
    "type of an entry": ("another type", lambda patch: patch.put(entry("/h")(patch) + 10, "<B", 2)),
    "names not in order": ("not in order", set_name("/g", b"i")),
    "name twice": ("not in order", set_name("/h", b"g")),
    "name with a slash": ("slash or NUL", set_name("/d/e", b"/")),
    "name with a NUL": ("slash or NUL", set_name("/d/e", b"\0")),
    "empty last name": ("empty", set_name("/n", b"\0")),
    "names that overlap": ("overlap", lambda patch: patch.put(entry("/h")(patch) + 8, "<H", 12)),
    "name behind the block": ("overlap", lambda patch: patch.put(entry("/h")(patch) + 8, "<H", 65535)),
    "block without entries": ("without entries", lambda patch: patch.put(entry("/.")(patch) + 8, "<H", 0)),
    "entries that are cut": ("without entries", lambda patch: patch.put(entry("/.")(patch) + 8, "<H", 13)),
    "more entries than a block": ("without entries", lambda patch: patch.put(entry("/.")(patch) + 8, "<H", 4092)),
    "compressed": ("layout", set_inode("/h", FORMAT, "<H", 3)),
    "unknown layout": ("layout", set_inode("/h", FORMAT, "<H", 0x15)),
    "no type": ("unknown file type", set_inode("/h", MODE, "<H", 0o000644)),
    "time of an inode": ("nanoseconds", set_inode("/h", NANOSECONDS, "<I", 10**9)),
    "size of a file": ("a size of", set_inode("/h", SIZE, "<Q", 2**63)),
    "petabytes inside": ("more attributes and data", set_inode("/h", SIZE, "<Q", 2**50)),
    "petabytes of the root": ("more attributes and data", set_inode("/", SIZE, "<Q", 2**50)),
    "petabytes of a directory below": ("more attributes and data", set_inode("/d", SIZE, "<Q", 2**50)),
    "petabytes of a symlink": ("more attributes and data", set_inode("/l", SIZE, "<Q", 2**50)),
    "symlink of 4096 bytes": ("more attributes and data|more than 4095", set_inode("/l", SIZE, "<Q", 4096)),
    "empty symlink": ("is empty", set_inode("/l", SIZE, "<Q", 0)),
    "symlink with a NUL": ("NUL", lambda patch: patch.put(patch.tail(patch.inode("/l"))[0], "<B", 0)),
    "symlink in chunks": ("chunks", set_inode("/l", FORMAT, "<H", 9)),
    "directory in chunks": ("chunks", set_inode("/d", FORMAT, "<H", 9)),
    "data beyond the end": (
        "beyond the end",
        lambda patch: (set_inode("/h", FORMAT, "<H", 1)(patch), set_inode("/h", PLACE, "<I", 0xFFFFFFFF)(patch)),
    ),
    "attributes beyond the end": ("beyond the end", set_inode("/n", COUNT, "<H", 65535)),
    "links": ("2 names has 1 links", set_inode("/d/f", LINKS, "<I", 1)),
    "links of a single file": ("1 names has 7 links", set_inode("/h", LINKS, "<I", 7)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_error_with_its_offset(fault: str) -> None:
    message, change = FAULTS[fault]
    data = patched(change)
    with pytest.raises(FormatError, match=message) as caught:
        read_tree(Image(data), ReadRules("rs", SHA256))
    assert caught.value.offset is not None
    assert 0 <= caught.value.offset <= len(data)
    assert f"at byte {caught.value.offset}" in str(caught.value)


def test_how_much_of_a_file_may_be_inside_of_an_image() -> None:
    patch = Patch(make_image(*(f"/{name} 4000 100644 1 0 0 0 0.0 - {name * 4000} -" for name in "abcd")))
    file = patch.inode("/a")
    patch.put(file + FORMAT, "<H", 1)
    patch.put(file + PLACE, "<I", 0)
    patch.put(file + SIZE, "<Q", 5000)
    read_tree(Image(bytes(patch.image)))
    patch.put(file + SIZE, "<Q", 5001)
    with pytest.raises(FormatError, match="5001 bytes inside of the image, more than 5000"):
        read_tree(Image(bytes(patch.image)))


def test_without_a_fault_there_is_none() -> None:
    tree = read_tree(Image(patched(lambda _: None)))
    assert b"".join(erofs.write(tree, version=2)) == patched(lambda _: None)


ATTRIBUTES: dict[str, tuple[str, bytes, int, bytes]] = {
    # What is searched, where behind it something is written, and what.
    "longer than the area": ("cut off", b"\x01\x01\x01\x00de", 2, b"\xff\xff"),
    "name longer than the area": ("cut off", b"\x01\x01\x01\x00de", 0, b"\xff"),
    "unknown prefix": ("unknown prefix 9", b"\x01\x01\x01\x00de", 1, b"\x09"),
    "long prefix": ("unknown prefix 129", b"\x01\x01\x01\x00de", 1, b"\x81"),
    "without name": ("name of an extended attribute has 0 bytes", b"\x01\x01\x01\x00de", 0, b"\0\0\2\0"),
    "metacopy of another algorithm": ("sha512 digest|holds no digest", b"\x00\x24\x00\x01" + b"\xab" * 32, 3, b"\2"),
    "metacopy with flags": ("holds no digest", b"\x00\x24\x00\x01" + b"\xab" * 32, 2, b"\1"),
    "redirect with a NUL": ("redirect", b"/ab/abab", 0, b"/a\0/abab"),
    "metacopy twice": ("twice", b"\x04\x01\x04\x00onlyhere", 0, b"\x04\x04\x04\x00"),
}


@pytest.mark.parametrize("fault", [name for name in ATTRIBUTES if name != "metacopy twice"])
def test_faults_of_attributes(fault: str) -> None:
    message, searched, behind, written = ATTRIBUTES[fault]
    data = make_image(*LINES)
    assert data.count(searched) == 1
    start = data.index(searched) + behind
    data[start : start + len(written)] = written
    with pytest.raises(FormatError, match=message) as caught:
        read_tree(Image(bytes(data)), ReadRules("rs", SHA256))
    assert caught.value.offset is not None


def test_attributes_that_occur_twice() -> None:
    data = bytes(make_image("/f 0 100644 1 0 0 0 0.0 - - - user.a=1 user.b=2"))
    with pytest.raises(FormatError, match="twice"):
        read_tree(Image(data.replace(b"\x01\x01\x01\x00b2", b"\x01\x01\x01\x00a2")))
    data = bytes(make_image(f"/f 9 100644 1 0 0 0 0.0 - - {DIGEST} trusted.overlay.bexbcopy=12"))
    # The last attribute becomes a second metacopy.
    escaped = b"\x18\x04\x02\x00overlay.overlay.bexbcopy12"
    assert escaped in data
    for name in (b"metacopy", b"redirect"):
        again = b"\x10\x04\x0a\x00overlay." + name + b"0123456789"
        with pytest.raises(FormatError, match="twice"):
            read_tree(Image(data.replace(escaped, again)))


@pytest.mark.parametrize("value", [b"\0\x24\0\1" + b"x" * 33, b"\0\x24\0\2" + b"x" * 32], ids=["longer", "other hash"])
def test_a_digest_unlike_the_one_before(value: bytes) -> None:
    """The one before has shown what the beginning of a digest looks like, and how long it is."""
    held = b"x" * (len(value) - 8)
    lines = (
        f"/a 9 100644 1 0 0 0 0.0 - - {DIGEST}",
        f"/b 0 100644 1 0 0 0 0.0 - - - trusted.overlay.bexbcopy={held.decode()}",
    )
    data = bytes(make_image(*lines))
    escaped = b"\x18\x04" + bytes([len(held)]) + b"\0overlay.overlay.bexbcopy" + held
    assert escaped in data
    with pytest.raises(FormatError, match="holds no digest"):
        read_tree(Image(data.replace(escaped, b"\x10\x04" + bytes([len(value)]) + b"\0overlay.metacopy" + value)))


def test_names_and_paths_that_are_too_long() -> None:
    patch = Patch(make_image("/" + "n" * 255 + " 0 100644 1 0 0 0 0.0", "/oo 0 100644 1 0 0 0 0.0"))
    place = entry("/oo")(patch) + 8
    patch.put(place, "<H", struct.unpack_from("<H", patch.image, place)[0] + 1)
    with pytest.raises(FormatError, match="too long"):
        read_tree(Image(bytes(patch.image)))
    path = b"x" * 4095
    data = bytes(make_image(f"/f 9 100644 1 0 0 0 0.0 {path.decode()} - -"))
    assert data.count(b"/" + path) == 1
    with pytest.raises(FormatError, match="a redirect attribute that is too long"):
        read_tree(Image(data.replace(b"/" + path, b"x" + path)))


def test_references_to_shared_attributes_beyond_the_end() -> None:
    patch = Patch(make_image(*LINES))
    area = patch.inode("/h") + 64
    assert patch.image[area + 4] == 1
    image = bytes(patch.put(area + 12, "<I", 0x3FFFFFFF))
    with pytest.raises(FormatError, match="reference"):
        read_tree(Image(image))
    with pytest.raises(FormatError, match="more references"):
        read_tree(Image(bytes(patch.put(area + 4, "<B", 200))))


def test_a_shape_is_no_way_around_the_checks() -> None:
    # Two files whose attributes have the same shape; then the redirect of one is made to go beyond its area.
    other = "cd" * 32
    lines = (f"/a 9 100644 1 0 0 0 0.0 - - {DIGEST}", f"/b 9 100644 1 0 0 0 0.0 - - {other}")
    patch = Patch(make_image(*lines))
    tree = read_tree(Image(bytes(patch.image)))
    assert [node.digest for node in (tree.root.children or {}).values()] == [
        bytes.fromhex(DIGEST),
        bytes.fromhex(other),
    ]
    inode = patch.inode("/b")
    (count,) = struct.unpack_from("<H", patch.image, inode + COUNT)
    with pytest.raises(FormatError, match="cut off"):
        read_tree(Image(bytes(patch.put(inode + COUNT, "<H", count - 2))))


@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_only_digest_and_path_are_left_out_of_a_shape(order: tuple[int, ...]) -> None:
    """What stands in their places in another file of the same shape is not taken for them."""
    lines = [f"/{n} 9 100644 1 0 0 0 0.0 xx/{4 * n} - {64 * n} user.sixteen-letters-={8 * n}" for n in ("a", "b")]
    data = bytes(make_image(*lines, version=1, compat="c"))
    entries = {
        n: [
            b"\x10\x04\x24\0overlay.metacopy\0\x24\0\1" + bytes.fromhex(64 * n),
            b"\x10\x04\x08\0overlay.redirect/xx/" + 4 * n.encode(),
            b"\x10\x01\x08\0sixteen-letters-" + 8 * n.encode(),
        ]
        for n in ("a", "b")
    }
    for three in entries.values():
        assert data.count(b"".join(three)) == 1
        *before, last = order  # which both have, and so both have one shape
        data = data.replace(b"".join(three), b"".join([*(three[at] for at in before), entries["a"][last]]))
    found = [
        (node.digest, node.payload, node.xattrs[b"user.sixteen-letters-"])
        for node in (read_tree(Image(data)).root.children or {}).values()
    ]
    expected = [[bytes.fromhex(64 * n), b"xx/" + 4 * n.encode(), 8 * n.encode()] for n in ("a", "b")]
    expected[1][order[2]] = expected[0][order[2]]
    assert found == [tuple(each) for each in expected]


def test_inodes_that_overlap_end_soon() -> None:
    """Every 32 bytes an inode whose attributes are those of all behind it: quadratic for who believes it."""
    count = 4000
    head = bytes(make_image())[: SUPERBLOCK_START + 128]
    nids = range(64, 64 + count)
    names = [b"%04d" % number for number in range(count)]
    blocks = []
    for start in range(0, count, 200):
        group = names[start : start + 200]
        offset = DIRENT.size * len(group)
        rows = [DIRENT.pack(nids[start + at], offset + 4 * at, 1, 0) for at in range(len(group))]
        blocks.append((b"".join(rows) + b"".join(group)).ljust(BLOCK, b"\0"))
    first_block = (64 + count) * SLOT // BLOCK + 70
    size = (first_block + len(blocks)) * BLOCK
    root = struct.pack("<HHHHQIIIIqII16x", 1, 0, 0o40755, 0, len(blocks) * BLOCK, first_block, 0, 0, 0, 0, 0, 2)
    file = struct.pack("<HHHHIIIIHHI", 0, 60000, 0o100644, 1, 0, 0, 0, 0, 0, 0, 0)
    image = bytearray(size)
    image[: len(head)] = head
    image[36 * SLOT : 36 * SLOT + 64] = root
    image[64 * SLOT : (64 + count) * SLOT] = file * count
    image[first_block * BLOCK :] = b"".join(blocks)
    struct.pack_into("<H", image, SUPERBLOCK_START + 14, 36)
    struct.pack_into("<I", image, SUPERBLOCK_START + 36, size // BLOCK)
    with pytest.raises(FormatError, match="more attributes and data than there are bytes"):
        read_tree(Image(bytes(image)))
    with pytest.raises(FormatError, match="more attributes and data than there are bytes"):
        read_objects(Image(bytes(image)), SHA256)


def test_a_text_without_end_is_refused_before_it_is_written() -> None:
    """Attributes that are stored once and belong to thousands of files."""
    xattrs = {b"user.k%d" % number: bytes(30_000) for number in range(50)}
    files = {b"%04d" % number: Node(0o100644, xattrs=xattrs) for number in range(3000)}
    data = b"".join(erofs.write(Tree(Node(0o40755, children=files), SHA256), version=2))
    assert len(data) < 2_500_000
    with pytest.raises(FormatError, match="endless"):
        read_tree(Image(data))


def deep(levels: int, name: bytes = b"d") -> Tree:
    root = node = Node(0o40755, children={})
    for _ in range(levels):
        below = Node(0o40755, children={})
        node.children = {name: below}
        node = below
    return Tree(root, SHA256)


def test_depth_costs_no_recursion() -> None:
    data = b"".join(erofs.write(deep(5000), version=2))
    tree = read_tree(Image(data))
    assert b"".join(erofs.write(tree, version=2)) == data
    assert read_objects(Image(data), SHA256).keys() == set()
    path = b"/d" * 5000
    assert Lookup(Image(data)).node(path).children == {}
    text = io.BytesIO()
    dumpfile.write_below(b"/d", Lookup(Image(data)).below(b"/d" * 4990), text.write)
    assert text.getvalue().count(b"\n") == 11


def test_endless_paths_are_refused() -> None:
    data = b"".join(erofs.write(deep(20_000, b"d" * 255), version=2))
    with pytest.raises(FormatError, match="endless"):
        read_tree(Image(data))
    assert read_objects(Image(data), SHA256).keys() == set()  # what can be made must not keep others' garbage


def test_the_deepest_tree_that_a_pull_brings_can_be_read() -> None:
    data = b"".join(erofs.write(deep(2000, b"d" * 255), version=1))
    assert sum(1 for _ in walk(read_tree(Image(data)).root)) == 2000


def test_files_that_are_no_images(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"x", bytes(1151), bytes(4096), b"text" * 2000):
        path.write_bytes(content)
        with path.open("rb") as file, pytest.raises(FormatError, match="malformed image"):
            Image.open(file.fileno())
    with path.open("r+b") as file:
        file.truncate(MAX_IMAGE + 1)
        with pytest.raises(TooLargeError):
            Image.open(file.fileno())
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(FormatError, match="regular file"):
            Image.open(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("names", "error"),
    [(7, None), (6, "more than 6 names")],
    ids=["all", "one less"],
)
def test_names_are_counted(monkeypatch: pytest.MonkeyPatch, names: int, error: str | None) -> None:
    """Hard links take 13 bytes of an image: a gigabyte of them is more than fits into memory."""
    data = bytes(make_image(*LINES[:5], "/i 0 @100644 - - - - - /h - -", "/j 0 @100644 - - - - - /h - -"))
    monkeypatch.setattr(reader_image, "MAX_ENTRIES", names)
    for read in (lambda: read_tree(Image(data)), lambda: read_objects(Image(data), SHA256)):
        if error is None:
            read()
        else:
            with pytest.raises(TooLargeError, match=error):
                read()


def test_names_of_one_directory_are_counted_while_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(make_image(*(f"/{number:0250}{'' if number else 'x'} 0 100644 1 0 0 0 0.0" for number in range(60))))
    monkeypatch.setattr(reader_image, "MAX_ENTRIES", 40)
    image = Image(data)
    blocks = []
    block = Image.block
    monkeypatch.setattr(Image, "block", lambda *arguments: blocks.append(arguments[1]) or block(*arguments))
    with pytest.raises(TooLargeError, match="more than 40 names"):
        Lookup(image).children(b"/")
    assert len(blocks) == 3 < len(image.blocks(image.inode(image.root_nid)))


def test_attributes_of_different_sets_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"/{name} 0 100644 1 0 0 0 0.0 - - - user.{name}=x user.y=z" for name in "abc"]
    data = bytes(make_image(*lines, *(line.replace("/", "/same-", 1) for line in lines)))
    monkeypatch.setattr(reader_attributes, "MAX_ENTRIES", 6)
    assert len(read_tree(Image(data)).root.children or {}) == 6
    monkeypatch.setattr(reader_attributes, "MAX_ENTRIES", 5)
    with pytest.raises(TooLargeError, match="more than 5 different extended attributes"):
        read_tree(Image(data))


def test_looking_up_what_is_not_there() -> None:
    lookup = Lookup(Image(bytes(make_image(*LINES))))
    for path in (
        b"/x",
        b"/d/x",
        b"/h/x",
        b"/.",
        b"/d/..",
        b"/a",
        b"/z",
        b"/\xff",
        b"/d/e/"[:-1] + b"/0",
        b"/" + b"n" * 300,
    ):
        with pytest.raises(NotFoundError, match="not found"):
            lookup.node(path)
    assert lookup.node(b"//d///f/").digest == bytes.fromhex(DIGEST)
    assert lookup.node(b"").children == {}
    assert lookup.children(b"/h") == {}
    assert list(lookup.children(b"/d")) == [b"e", b"f"]


def test_looking_up_in_directories_of_many_blocks() -> None:
    names = [b"%05d" % number for number in range(0, 6000, 2)]
    files = {name: Node(0o100600, uid=int(name)) for name in names}
    image = Image(b"".join(erofs.write(Tree(Node(0o40755, children=files), SHA256), version=2)))
    lookup = Lookup(image)
    assert len(image.blocks(image.inode(image.root_nid))) > 10
    assert list(lookup.children(b"")) == names
    for number in range(0, 6000, 7):
        path = b"/%05d" % number
        if number % 2:
            with pytest.raises(NotFoundError):
                lookup.node(path)
        else:
            assert lookup.node(path).uid == number


def test_looking_up_one_path_after_another_reads_each_block_once_and_keeps_few() -> None:
    reads = []

    class Counted(Image):
        def block(self, start: int, length: int) -> tuple[list[bytes], tuple[int, ...], tuple[int, ...]]:
            reads.append(start)
            return super().block(start, length)

    for count in (800, 3000):
        names = [b"%0200d" % number for number in range(count)]
        files = {name: Node(0o100600, uid=place) for place, name in enumerate(names)}
        image = Counted(b"".join(erofs.write(Tree(Node(0o40755, children=files), SHA256), version=2)))
        blocks = len(image.blocks(image.inode(image.root_nid)))
        lookup = Lookup(image)
        reads.clear()
        assert [lookup.node(b"/" + name).uid for name in names + names] == [*range(count), *range(count)]
        if blocks < 64:
            assert sorted(reads) == sorted(set(reads))
        else:
            assert blocks < len(reads) < 2 * count


def test_an_inode_that_is_cut_off() -> None:
    patch = Patch(make_image(*LINES))
    end = len(patch.image) // SLOT - 1
    patch.put(end * SLOT, "<H", 1)
    patch.put(entry("/h")(patch), "<Q", end)
    with pytest.raises(FormatError, match="cut off"):
        read_tree(Image(bytes(patch.image)))


def test_one_file_with_two_names_in_a_listing() -> None:
    lookup = Lookup(Image(bytes(make_image("/a 0 100644 2 0 0 0 0.0 - - -", "/b 0 @100644 - - - - - /a - -"))))
    found = lookup.children(b"/")
    assert found[b"a"] is found[b"b"]


def test_shared_attributes_that_overlap_end_soon() -> None:
    """Thousands of references, each to a value of 60,000 bytes that begins four bytes behind the one before."""
    value = b"\x01\x01\x60\xea" * 15_100
    line = "/{} 0 100644 1 0 0 0 0.0 - - - user.v=" + "".join(f"\\x{byte:02x}" for byte in value)
    image = make_image(line.format("a"), line.format("b"))
    table = image.index(value)
    # A hundred references in an inode of its own, behind everything.
    end = len(image)
    references = [(table + 4 * number) // 4 for number in range(100)]
    image += struct.pack("<HHHHQIIIIqII16x", 1, 1 + 100, 0o100644, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    image += struct.pack("<IB7x", 0, 100) + struct.pack("<100I", *references)
    patch = Patch(image)
    patch.put(entry("/b")(patch), "<Q", end // SLOT)
    assert struct.unpack_from("<I", image, SUPERBLOCK_START + 44) == (0,)
    with pytest.raises(FormatError, match="shared attributes overlap"):
        read_tree(Image(bytes(image)))
    with pytest.raises(FormatError, match="shared attributes overlap"):
        read_objects(Image(bytes(image)), SHA256)
    with pytest.raises(FormatError, match="shared attributes overlap"):
        Lookup(Image(bytes(image))).children(b"/")
