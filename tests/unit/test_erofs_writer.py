"""The rules of the EROFS writer that the recorded images do not reach: limits, refusals, and where writers differ."""

from __future__ import annotations

import struct

import pytest

from composefs import dumpfile, erofs
from composefs.digest import SHA256, SHA512
from composefs.erofs.layout import BLOCK
from composefs.erofs.reader import Image, Lookup
from composefs.erofs.xattrs import escape_overlay
from composefs.erofs.xxhash import xxh32
from composefs.errors import ComposefsError, FormatError, TooLargeError, UsageError
from composefs.tree import Node, Tree

ROOT = "/ 0 40755 2 0 0 0 0.0 - - -"
DIGEST = "ab" * 32
FIVE = "".join(f" user.k{number}={'v' * 65535}" for number in range(5))
"""Attributes that are too large together."""


def tree(*lines: str) -> Tree:
    return dumpfile.parse("".join(line + "\n" for line in (ROOT, *lines)).encode(), SHA256)


def image(*lines: str, version: int = 1, max_version: int | None = None, compat: str = "rs") -> bytes:
    assert compat in ("rs", "c")
    pieces = erofs.write(tree(*lines), version=version, max_version=max_version, compat="c" if compat == "c" else "rs")
    return b"".join(pieces)


def version_of(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 12)[0])


def build_time(data: bytes) -> int:
    return int(struct.unpack_from("<q", data, 1024 + 24)[0])


def inodes(data: bytes) -> int:
    return int(struct.unpack_from("<Q", data, 1024 + 16)[0])


@pytest.mark.parametrize(
    ("data", "seed", "expected"),
    [
        (b"", 0, 0x02CC5D05),
        (b"a", 0, 0x550D7456),
        (b"abc", 0, 0x32D153FF),
        (b"Nobody inspects the spammish repetition", 0, 0xE2293B2F),
        (b"", 0x9E3779B1, 0x36B78AE7),
    ],
)
def test_xxh32(data: bytes, seed: int, expected: int) -> None:
    assert xxh32(data, seed) == expected


def test_the_shape_of_the_smallest_images() -> None:
    for version in (0, 1, 2):
        data = image(version=version)
        assert data[:4] == b"\x9a\x62\x78\xd0"
        assert data[1024:1028] == b"\xe2\xe1\xf5\xe0"
        assert version_of(data) == version
        assert inodes(data) == (1 if version == 2 else 257)
        assert len(data) % BLOCK == 0
        assert struct.unpack_from("<I", data, 1024 + 36)[0] == len(data) // BLOCK


def test_unknown_formats_are_refused() -> None:
    for options in ({"version": 3}, {"version": -1}, {"version": 2, "compat": "c"}, {"version": 0, "max_version": 3}):
        with pytest.raises(UsageError, match="does not exist"):
            image(**options)


def test_only_a_whiteout_raises_the_format_and_only_for_c() -> None:
    whiteout = "/w 0 20644 1 0 0 0 0.0 - - -"
    device = "/w 0 20644 1 0 0 259 0.0 - - -"
    assert version_of(image(device, version=0, max_version=1, compat="c")) == 0
    assert version_of(image(whiteout, version=0, max_version=1, compat="c")) == 1
    assert version_of(image(whiteout, version=0, max_version=0, compat="c")) == 0
    assert version_of(image(whiteout, version=0, compat="rs")) == 0


def test_overlay_attributes_are_escaped_once_more() -> None:
    assert escape_overlay(
        {b"trusted.overlay.x": b"1", b"trusted.overlay.overlay.x": b"2", b"user.overlay.x": b"3"}
    ) == {
        b"trusted.overlay.overlay.x": b"1",
        b"trusted.overlay.overlay.overlay.x": b"2",
        b"user.overlay.x": b"3",
    }


def test_the_redirect_follows_the_payload_in_c_and_the_digest_in_rs() -> None:
    line = f"/f 99 100644 1 0 0 0 0.0 some/where - {DIGEST}"
    assert b"/some/where" in image(line, compat="c")
    assert b"/some/where" not in image(line)
    assert f"/ab/{DIGEST[2:]}".encode() in image(line)
    assert b"/some/where" in image("/f 99 100644 1 0 0 0 0.0 some/where - -")


def test_links_are_believed_by_c_and_counted_by_rs() -> None:
    lines = ("/a 0 100644 70000 0 0 0 0.0 - - -", "/b 0 @100644 - - - - - /a - -")
    # 70,000 does not fit a compact inode, so the file's inode is extended: format 1 instead of 0.
    assert image(*lines, compat="c") != image(*lines)
    assert image(*lines) == image(lines[0].replace("70000", "2"), lines[1])


def test_the_size_of_a_device_is_believed_by_c_and_no_size_to_rs() -> None:
    # 2^32 does not fit a compact inode.
    given, none = "/a 4294967296 20644 1 0 0 259 0.0 - - -", "/a 0 20644 1 0 0 259 0.0 - - -"
    assert image(given, compat="c") != image(none, compat="c")
    assert image(given) == image(none)


def test_the_place_of_a_hard_link_group() -> None:
    first_is_real = ("/a 1 100644 2 0 0 0 0.0 - x -", "/b 0 100644 1 0 0 0 0.0 - - -", "/c 0 @100644 - - - - - /a - -")
    last_is_real = ("/c 1 100644 2 0 0 0 0.0 - x -", "/b 0 100644 1 0 0 0 0.0 - - -", "/a 0 @100644 - - - - - /c - -")
    for version in (0, 1, 2):
        assert image(*first_is_real, version=version) == image(*last_is_real, version=version)
    assert image(*first_is_real, compat="c") != image(*last_is_real, compat="c")
    assert image(*first_is_real, compat="c") == image(*first_is_real)


def test_depth_first_is_what_decides_the_first_name() -> None:
    directory = "/a 0 40755 2 0 0 0 0.0 - - -"
    deep_is_real = (directory, "/a/x 1 100644 2 0 0 0 0.0 - x -", "/b 0 @100644 - - - - - /a/x - -")
    top_is_real = (directory, "/b 1 100644 2 0 0 0 0.0 - x -", "/a/x 0 @100644 - - - - - /b - -")
    for version in (0, 1, 2):
        assert image(*deep_is_real, version=version) == image(*top_is_real, version=version)
    assert image(*top_is_real, compat="c") != image(*deep_is_real, compat="c")


def test_the_smallest_time_is_signed_in_c_and_unsigned_in_rs() -> None:
    line = "/f 0 100644 1 0 0 0 -5.0 - - -"
    assert build_time(image(line, compat="c")) == -5
    assert build_time(image(line)) == 0
    assert build_time(image(line, version=2)) == 0


def test_a_device_like_a_stub_stays_one_in_rs() -> None:
    stub = "/00 0 20644 1 0 0 0 0.0 - - -"
    assert image(stub) == image()
    assert image(stub, compat="c") != image(compat="c")
    for other in (stub.replace("/00", "/0g"), stub.replace("20644", "20600"), stub + " user.x=y"):
        assert b"overlay.whiteouts" in image(other)
    # Its label is the root's label, and then a device with that label is like a stub.
    labelled = dumpfile.parse(f"{ROOT} security.selinux=l\n{stub} security.selinux=l\n".encode(), SHA256)
    plain = dumpfile.parse(f"{ROOT} security.selinux=l\n".encode(), SHA256)
    assert [*erofs.write(labelled, version=1)] == [*erofs.write(plain, version=1)]


def _many(count: int, files: int = 2) -> list[str]:
    attributes = "".join(f" user.k{number}=" for number in range(count))
    return [f"/f{number} 0 100644 1 0 0 0 0.0 - - -{attributes}" for number in range(files)]


def test_references_have_a_limit() -> None:
    for version in (0, 1, 2):
        image(*_many(255), version=version)
        with pytest.raises(TooLargeError, match="more than 255"):
            image(*_many(256), version=version)
    # libcomposefs stores what is beyond 128 inline.
    assert len(image(*_many(300), compat="c")) > len(image(*_many(128), compat="c"))


def test_large_attributes() -> None:
    big = "v" * 32742
    image(f"/f 0 100644 1 0 0 0 0.0 - - - user.k={big}", compat="c")
    with pytest.raises(TooLargeError, match="32767"):
        image(f"/f 0 100644 1 0 0 0 0.0 - - - user.k={big}v", compat="c")
    image(f"/f 0 100644 1 0 0 0 0.0 - - - user.k={'v' * 65535}")
    with pytest.raises(TooLargeError, match="extended attributes take"):
        image(f"/f 0 100644 1 0 0 0 0.0 - - -{FIVE}")


@pytest.mark.parametrize("path", ["/d", "/d/e", "/d/e/f"])
@pytest.mark.parametrize("version", [1, 2])
def test_what_has_attributes_that_are_too_large_is_named(path: str, version: int) -> None:
    lines = [f"/{name} 0 40755 2 0 0 0 0.0 - - -" for name in ("a", "d", "d/e")]
    lines += [f"/d/e/{name} 0 100644 2 0 0 0 0.0 - - -" for name in "ef"]
    lines = [line + (FIVE if line.startswith(path + " ") else "") for line in lines]
    with pytest.raises(TooLargeError) as caught:
        image(*lines, "/d/e/z 0 @100644 - - - - - /d/e/f", version=version)
    assert caught.value.message.startswith(f"{path}: a file's extended attributes take")
    assert caught.value.subject == path


def test_nothing_is_made_for_a_repository_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage collection reads every image; mkcomposefs makes files, of which it knows nothing."""
    lines = [f"/{name} 0 100644 1 0 0 0 0.0 - - - user.{name}=x user.y=z" for name in "abc"]
    for name, most, error in (
        ("MAX_ENTRIES", 6, "more than 5 names or different"),
        ("MAX_IMAGE", len(image(*lines, version=2)), "more than .* bytes"),
    ):
        monkeypatch.setattr(erofs, name, most)
        image(*lines, version=2)
        monkeypatch.setattr(erofs, name, most - 1)
        with pytest.raises(TooLargeError, match=error):
            image(*lines, version=2)
        image(*lines, compat="c")
        monkeypatch.undo()


def test_large_files() -> None:
    for compat in ("c", "rs"):
        image(f"/f {2**53} 100644 1 0 0 0 0.0 - - {DIGEST}", compat=compat)
        with pytest.raises(TooLargeError, match="2\\^53"):
            image(f"/f {2**53 + 1} 100644 1 0 0 0 0.0 - - {DIGEST}", compat=compat)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_whiteout_has_one_name(version: int) -> None:
    lines = ("/w 0 20600 2 0 0 {} 0.0 - - -", "/x 0 @20600 - - - - - /w - -")
    image(lines[0].format(259), lines[1], version=version)
    with pytest.raises(FormatError, match="/w: the whiteout has 2 names"):
        image(lines[0].format(0), lines[1], version=version)


@pytest.mark.parametrize(("field", "most"), [("size", 2**32 - 1), ("nlink", 65535), ("uid", 65535), ("gid", 65535)])
@pytest.mark.parametrize("version", [0, 1])
def test_numbers_that_are_too_large_for_a_small_inode(version: int, field: str, most: int) -> None:
    for value, size in ((most, 32), (most + 1, 64)):
        numbers = {"size": 1, "nlink": 1, "uid": 0, "gid": 0, field: value}
        line = "/f {size} 100644 {nlink} {uid} {gid} 0 0.0 - - -".format(**numbers)
        read = Image(image(line, version=version, compat="c"))
        nid, node = Lookup(read).find(b"/f")
        assert getattr(node, field) == value
        inode = read.inode(nid)
        assert inode.attributes - inode.offset == size


def test_the_longest_symlinks() -> None:
    for version, longest in ((0, 4095), (1, 4095), (2, 4064)):
        line = f"/l {longest} 120777 1 0 0 0 0.0 {'t' * longest} - -"
        assert b"t" * longest in image(line, version=version)
    with pytest.raises(TooLargeError, match="would cross a block"):
        image(f"/l 4065 120777 1 0 0 0 0.0 {'t' * 4065} - -", version=2)


@pytest.mark.parametrize(
    "node",
    [
        Node(0o100644, size=5001, content=b"x" * 5001),
        Node(0o120777, payload=b"t" * 4096),
        Node(0o120777),
        Node(0o170644),
        Node(0o100644, xattrs={b"": b"v"}),
        Node(0o100644, xattrs={b"n" * 256: b"v"}),
        Node(0o100644, xattrs={b"user.k": b"v" * 65536}),
    ],
    ids=["content", "target", "no target", "type", "empty name", "long name", "long value"],
)
def test_nodes_that_no_image_can_hold(node: Node) -> None:
    directory = Node(0o40755, children={b"n": node})
    for version in (0, 1, 2):
        with pytest.raises(ComposefsError, match=r"^/d/n: ") as caught:
            erofs.write(Tree(Node(0o40755, children={b"d": directory}), SHA256), version=version)
        assert caught.value.kind in ("too_large", "invalid")
        assert caught.value.subject == "/d/n"


@pytest.mark.parametrize("name", [b"", b"n" * 256])
def test_names_that_no_image_can_hold(name: bytes) -> None:
    with pytest.raises(TooLargeError, match=r"^/: a file name in it"):
        erofs.write(Tree(Node(0o40755, children={name: Node(0o100644)}), SHA256), version=1)


def test_hard_links_to_directories_and_to_what_is_not_there() -> None:
    directory = Node(0o40755, children={})
    root = Node(0o40755, children={b"a": directory, b"b": directory})
    directory.home = root, b"a"
    with pytest.raises(FormatError, match=r"^/a: a hard link to a directory"):
        erofs.write(Tree(root, SHA256), version=1, compat="c")
    lost = Node(0o100644)
    lost.home = directory, b"gone"
    with pytest.raises(FormatError, match=r"^/a: the target of the hard link is not in the tree"):
        erofs.write(Tree(Node(0o40755, children={b"a": lost}), SHA256), version=1, compat="c")
    assert [*erofs.write(Tree(Node(0o40755, children={b"a": lost}), SHA256), version=1)]


def test_the_tree_is_not_changed_and_images_repeat() -> None:
    lines = (
        "/w 0 20644 1 0 0 0 0.0 - - - user.x=y",
        f"/f 99 100644 1 0 0 0 0.0 - - {DIGEST}",
        "/l 0 @100644 - - - - - /f",
    )
    made = tree(*lines)
    first = [*erofs.write(made, version=1)]
    assert [*erofs.write(made, version=2)] != first
    assert [*erofs.write(made, version=1)] == first
    assert (made.root.children or {})[b"w"].xattrs == {b"user.x": b"y"}


def test_sha512_digests() -> None:
    digest = "cd" * 64
    made = dumpfile.parse(f"{ROOT}\n/f 99 100644 1 0 0 0 0.0 - - {digest}\n".encode(), SHA512)
    data = b"".join(erofs.write(made, version=2))
    assert b"\x00\x44\x00\x02" + bytes.fromhex(digest) in data
    assert f"/cd/{digest[2:]}".encode() in data
