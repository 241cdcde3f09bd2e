"""Dirtrees, dirmetas, commits and file headers: what is read, and what is refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import sha256

import pytest

from composefs_ext.errors import FormatError, UsageError
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.fileheader import MAX_HEAD, checksum_header, head_size, parse_head
from composefs_ostree.formats.names import (
    ObjectType,
    check_ref,
    is_collection,
    is_commit_id,
    is_ref,
    object_path,
    parse_checksum_line,
)
from composefs_ostree.formats.objects import parse_commit, parse_dirmeta, parse_dirtree, parse_xattrs

A, B, C = (bytes([number]) * 32 for number in (0xAA, 0xBB, 0xCC))


def dirtree(files: list[tuple[str, bytes]], directories: list[tuple[str, bytes, bytes]]) -> bytes:
    return gvariant.encode("(a(say)a(sayay))", (files, directories))


def dirmeta(mode: int, xattrs: list[tuple[bytes, bytes]] | None = None) -> bytes:
    numbers = [int.from_bytes(number.to_bytes(4, "big"), "little") for number in (1000, 100, mode)]
    return gvariant.encode("(uuua(ayay))", (*numbers, xattrs or []))


def head(
    mode: int = 0o100644,
    size: int = 0,
    target: str = "",
    xattrs: list[tuple[bytes, bytes]] | None = None,
    rdev: int = 0,
) -> bytes:
    swapped = [int.from_bytes(number.to_bytes(4, "big"), "little") for number in (7, 8, mode, rdev)]
    size = int.from_bytes(size.to_bytes(8, "big"), "little")
    z = gvariant.encode("(tuuuusa(ayay))", (size, *swapped, target, xattrs or []))
    return struct.pack(">II", len(z), 0) + z


def test_known_objects_have_their_known_ids() -> None:
    assert sha256(dirtree([], [])).hexdigest() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    root = bytes.fromhex("0000000000000000000041ed")
    assert sha256(root).hexdigest() == "446a0ef11b7cc167f3b603e585c7eeeeb675faa412d5ec73f62988eb0b6c5488"
    assert parse_dirmeta(root) == (0, 0, 0o40755, ())
    assert parse_dirtree(b"\0") == ([], [])


def test_a_dirtree_is_read_whatever_the_width_of_its_offsets() -> None:
    names = ["a" * length for length in (1, 2, 189, 190, 220, 221, 222, 255)]
    for count in (1, 2, 8):
        files = [(name, A) for name in sorted(names[:count])]
        directories = [("b" + name[1:], B, C) for name in sorted(names[:count])]
        read = parse_dirtree(dirtree(files, directories))
        assert read.files == [(name.encode(), file_id) for name, file_id in files]
        assert read.directories == [(name.encode(), tree, meta) for name, tree, meta in directories]
    many = [(f"{number:05}", A) for number in range(3000)]
    assert len(parse_dirtree(dirtree(many, [])).files) == 3000


@pytest.mark.parametrize(
    ("files", "directories", "word"),
    [
        ([("..", A)], [], "not a file name"),
        ([], [(".", A, B)], "not a file name"),
        ([("", A)], [], "not a file name"),
        ([("a/b", A)], [], "not a file name"),
        ([], [("/", A, B)], "not a file name"),
        ([("a" * 256, A)], [], "longer"),
        ([("a", A), ("a", B)], [], "twice"),
        ([], [("a", A, B), ("a", B, C)], "twice"),
        ([("a", A)], [("a", B, C)], "twice"),
        ([("b", A), ("a", A)], [], "order"),
        ([], [("b", A, B), ("a", A, B)], "order"),
        ([("a", A[:31])], [], "malformed"),
        ([("a", A + b"x")], [], "malformed"),
        ([], [("a", A[:31], B)], "malformed"),
        ([], [("a", A, B[:31])], "malformed"),
        ([], [("a" * 65_500, A, B)], "malformed"),
    ],
)
def test_entries_that_no_directory_can_have_are_refused(
    files: list[tuple[str, bytes]], directories: list[tuple[str, bytes, bytes]], word: str
) -> None:
    with pytest.raises(FormatError, match=word):
        parse_dirtree(dirtree(files, directories))


def test_names_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(FormatError, match="UTF-8"):
        parse_dirtree(dirtree([("ab", A)], []).replace(b"ab", b"\xff\xfe"))


def test_a_nul_inside_of_a_name_is_refused() -> None:
    with pytest.raises(FormatError):
        parse_dirtree(dirtree([("a!b", A)], []).replace(b"!", b"\0"))


def test_every_shortening_and_flip_of_a_dirtree_is_noticed_or_harmless() -> None:
    data = dirtree([("a", A), ("b" * 230, B)], [("c", A, B), ("d" * 230, B, C)])
    for length in range(1, len(data)):
        with pytest.raises(FormatError):
            parse_dirtree(data[:length])
    with pytest.raises(FormatError):
        parse_dirtree(b"")
    for position in range(len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        try:
            read = parse_dirtree(changed)
        except FormatError:
            continue
        files = [(name.decode(), file_id) for name, file_id in read.files]
        assert dirtree(files, [(name.decode(), t, m) for name, t, m in read.directories]) == changed


def offsets(width: int, body: bytes, *ends: int) -> bytes:
    return body + b"".join(end.to_bytes(width, "little") for end in ends)


def array(element: bytes) -> bytes:
    return element + gvariant.pack_offsets(len(element), [len(element)])


def listing(files: bytes, directories: bytes = b"") -> bytes:
    return files + directories + gvariant.pack_offsets(len(files + directories), [len(files)])


def entry(width: int, name_size: int, *ids: bytes) -> bytes:
    ends = [name_size + 1 + 32 * number for number in reversed(range(len(ids)))]
    return offsets(width, b"n" * name_size + b"\0" + b"".join(ids), *ends)


def attribute(width: int, value_size: int) -> bytes:
    return offsets(width, b"a\0" + b"v" * value_size, 2)


def attributes(data: bytes) -> object:
    return parse_xattrs(data, "test")


def head_of(width: int, value_size: int) -> bytes:
    z = struct.pack(">QIIIIB", 0, 7, 8, 0o100644, 0, 0) + array(attribute(1, value_size))
    z = offsets(width, z, 25)
    return struct.pack(">II", len(z), 0) + z


WIDE: dict[str, tuple[Callable[[bytes], object], Callable[[int], bytes]]] = {
    "a dirtree": (parse_dirtree, lambda width: offsets(width, array(entry(1, 219, A)), 254)),
    "its files": (parse_dirtree, lambda width: listing(offsets(width, entry(1, 220, A), 254))),
    "its directories": (parse_dirtree, lambda width: listing(b"", offsets(width, entry(1, 187, A, B), 254))),
    "a file": (parse_dirtree, lambda width: listing(array(entry(width, 221, A)))),
    "a directory": (parse_dirtree, lambda width: listing(b"", array(entry(width, 187, A, B)))),
    "a longer directory": (parse_dirtree, lambda width: listing(b"", array(entry(width, 188, A, B)))),
    "attributes": (attributes, lambda width: offsets(width, attribute(1, 251), 254)),
    "an attribute": (attributes, lambda width: array(attribute(width, 252))),
    "a head": (parse_head, lambda width: head_of(width, 225)),
}


@pytest.mark.parametrize("case", WIDE)
def test_offsets_are_as_narrow_as_they_can_be(case: str) -> None:
    """Where the wide ones make the whole so long that it is read with wide ones."""
    read, make = WIDE[case]
    read(make(1))
    with pytest.raises(FormatError):
        read(make(2))


def test_elements_do_not_overlap() -> None:
    """They are made before one is looked at, and might be as many copies of the whole."""
    with pytest.raises(FormatError, match="offsets out of order"):
        parse_dirtree(listing(offsets(1, entry(1, 9, A), 43, 0, 43)))


@pytest.mark.parametrize(
    "data",
    [listing(array(b"n" * 32 + b"\0")), listing(b"\0"), listing(b"", b"\0"), listing(b"", array(b"n" * 64 + b"\0\0"))],
    ids=["a file's id alone", "no file", "no directory", "a directory's ids alone"],
)
def test_entries_without_names_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"malformed \w+ entry"):
        parse_dirtree(data)


def test_a_name_does_not_reach_into_its_offset() -> None:
    with pytest.raises(FormatError, match="malformed extended attribute"):
        attributes(array(offsets(2, b"n" * 255, 0x100)))


@pytest.mark.parametrize("mode", [0o100644, 0o120777, 0o755, 0o200040755])
def test_a_dirmeta_describes_a_directory(mode: int) -> None:
    with pytest.raises(FormatError, match="mode"):
        parse_dirmeta(dirmeta(mode))
    assert parse_dirmeta(dirmeta(0o41777)) == (1000, 100, 0o41777, ())


def test_a_dirmeta_that_is_cut_is_refused() -> None:
    for length in range(12):
        with pytest.raises(FormatError, match="shorter than 12 bytes"):
            parse_dirmeta(dirmeta(0o40755)[:length])


def test_xattrs_lose_the_nul_of_their_names() -> None:
    pairs = [
        (b"security.selinux\0", b"label\0"),
        (b"user.empty\0", b""),
        (b"user.large\0", b"x" * 65536),
        (b"z" * 255 + b"\0", b""),
    ]
    assert parse_dirmeta(dirmeta(0o40755, pairs)).xattrs == tuple((name[:-1], value) for name, value in pairs)


@pytest.mark.parametrize(
    "pairs",
    [
        [(b"user.a", b"")],
        [(b"\0", b"")],
        [(b"", b"")],
        [(b"user\0a\0", b"")],
        [(b"b\0", b""), (b"a\0", b"")],
        [(b"a\0", b""), (b"a\0", b"")],
        [(b"a" * 256 + b"\0", b"")],
        [(b"a\0", b"x" * 65537)],
        [(b"%02d\0" % number, b"x" * 65536) for number in range(17)],
    ],
)
def test_xattrs_that_no_file_can_have_are_refused(pairs: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(FormatError):
        parse_xattrs(gvariant.encode("a(ayay)", pairs), "test")


def commit(
    parent: bytes = b"", root: bytes = A, meta: bytes = B, metadata: dict[str, gvariant.Variant] | None = None
) -> bytes:
    timestamp = int.from_bytes((1_700_000_000).to_bytes(8, "big"), "little")
    return gvariant.encode(
        "(a{sv}aya(say)sstayay)", (metadata or {}, parent, [], "subject", "body\n", timestamp, root, meta)
    )


def test_a_commit_is_read() -> None:
    read = parse_commit(commit(C, metadata={"version": gvariant.Variant("s", "1")}))
    assert read == ({"version": ("s", "1")}, C, "subject", "body\n", 1_700_000_000, A, B)
    assert parse_commit(commit()).parent is None


@pytest.mark.parametrize(
    "data",
    [
        commit(parent=b"x"),
        commit(root=b""),
        commit(meta=B[1:]),
        commit(metadata={"": gvariant.Variant("y", 1)}),
        commit()[:-1],
        commit() + b"\0",
        b"",
    ],
)
def test_commits_that_cannot_be_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_commit(data)


@pytest.mark.parametrize("value_size", [0, 1, 180, 190, 200, 205, 210, 215, 220, 230, 65000, 65480, 65500, 65536])
def test_the_checksum_header_is_the_head_without_the_size(value_size: int) -> None:
    # Around 255 and 65535 bytes the two headers have offsets of different width.
    for target_size in range(1, 20):
        target = "t" * target_size
        raw = head(0o120777, target=target, xattrs=[(b"user.k\0", b"v" * value_size)])
        numbers = [int.from_bytes(number.to_bytes(4, "big"), "little") for number in (7, 8, 0o120777, 0)]
        plain = gvariant.encode("(uuuusa(ayay))", (*numbers, target, [(b"user.k\0", b"v" * value_size)]))
        assert checksum_header(raw) == struct.pack(">II", len(plain), 0) + plain
        read = parse_head(raw)
        assert (read.target, read.xattrs) == (target.encode(), ((b"user.k", b"v" * value_size),))


def test_a_head_is_read() -> None:
    assert parse_head(head(0o104755, 123)) == (123, 7, 8, 0o104755, b"", ())
    assert not parse_head(head()).is_symlink
    assert parse_head(head(0o120777, target="x")).is_symlink
    assert head_size(head()) == len(head())
    assert head_size(struct.pack(">II", MAX_HEAD - 8, 0)) == MAX_HEAD
    with pytest.raises(FormatError):  # before anybody makes room for it
        head_size(struct.pack(">II", MAX_HEAD - 7, 0))


@pytest.mark.parametrize(
    "raw",
    [
        head(0o40755),
        head(0o644),
        head(0o60644),
        head(0o300644 | 1 << 20),
        head(0o120777),
        head(0o120777, target="x" * 4096),
        head(0o120777, size=1, target="x"),
        head(0o100644, target="x"),
        head(0o120777, target="ab").replace(b"ab\0", b"abc"),
        head(0o120777, target="abc").replace(b"abc", b"a\0c"),
        head()[:-1] + b"\x18",
        head()[:-1] + b"\x1a",
        head()[:-1] + b"\xff",
        struct.pack(">II", 30, 0) + head()[8:32] + array(attribute(1, 1)) + b"\x18",  # no target, not even its NUL
        head(rdev=1),
        head(size=1 << 63),
        head() + b"\0",
        head()[:-1],
        b"\0\0\0\0\0\0\0\0",
        b"\0\0\0",
        b"\0\xff\xff\xff\0\0\0\0",
        head()[:4] + b"\0\0\0\x01" + head()[8:],
        head(xattrs=[(b"user.k", b"")]),
    ],
)
def test_heads_that_cannot_be_are_refused(raw: bytes) -> None:
    with pytest.raises(FormatError):
        parse_head(raw)


@pytest.mark.parametrize("name", ["a", "a/b", "os/x86_64/stable", "_x", "1.2-3", "ä", "日本/x²", "F" * 64])
def test_refs(name: str) -> None:
    assert check_ref(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/a",
        "a/",
        "a//b",
        "..",
        "a/../b",
        ".a",
        "-a",
        "a b",
        "a\n",
        "€",
        "ä\xa0",
        "\udcff",
        "a%2fb",
        "x" * 5000,
        "0f" * 32,
    ],
)
def test_names_that_are_no_refs(name: str) -> None:
    with pytest.raises(UsageError):
        check_ref(name)


def test_names_are_bounded() -> None:
    """Also those that nobody typed, as in a summary."""
    assert is_ref("x" * 4096)
    assert not is_ref("x" * 4097)
    assert is_collection("a." + "b" * 253)
    assert not is_collection("a." + "b" * 254)


def test_ids_and_paths() -> None:
    assert object_path(ObjectType.FILE, A) == f"objects/aa/{'aa' * 31}.filez"
    assert is_commit_id("0" * 64)
    assert not is_commit_id("0" * 63 + "G")
    assert not is_commit_id("0" * 64 + "\n")
    assert parse_checksum_line(b"aa" * 32 + b"\n", "there") == A
    with pytest.raises(FormatError, match="there"):
        parse_checksum_line(b"<html>", "there")
