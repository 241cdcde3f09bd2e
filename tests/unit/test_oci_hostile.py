"""Archives that somebody made to do harm, or that were damaged: one clear error, within bounds of memory and time."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from composefs import dumpfile
from composefs.digest import SHA256
from composefs_ext import Core, Request
from composefs_ext.errors import CorruptError, ExtError, FormatError, TooLargeError
from composefs_ext.staging import Staging
from composefs_ext.testing import MemoryCore
from composefs_oci import filesystem
from composefs_oci.formats.digest import digest_of, digest_of_hash
from composefs_oci.layers import expand
from composefs_oci.layers.stored import entries, open_layer
from composefs_oci.layers.unpacking import unpack
from composefs_oci.names import BLOB, LAYER, layer_stream
from support.oci_layers import Layers, Pieces
from support.vectors import DATA

import sys  # isort: skip

sys.path.insert(0, str(DATA))
from boot_bytes import BASE, CHAR, DIR, FILE, HARD, SYM, Entry, header, padded, record, tar_entry

END = bytes(1024)


def archive(*members: Entry | bytes) -> bytes:
    return b"".join(member if isinstance(member, bytes) else tar_entry(member, "") for member in members) + END


def pax(*records: tuple[bytes, bytes]) -> bytes:
    data = b"".join(record(*each) for each in records)
    return header(b"x", b"x", len(data)) + padded(data)


def lines(directory: Path, *layers: bytes) -> list[str]:
    made = Layers(directory)
    for data in layers:
        made.add(data)
        assert made.archive() == data
    dump = made.dump()
    dumpfile.parse(dump, SHA256)
    return dump.decode().splitlines()


def paths(directory: Path, *layers: bytes) -> list[str]:
    return [line.split(" ")[0] for line in lines(directory, *layers)]


# Ways out of the tree


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x", "..", "a/..", "./../x", "a/./../b", "a//../b"])
def test_no_way_up(tmp_path: Path, name: str) -> None:
    for member in (
        Entry(name),
        Entry(name, DIR),
        Entry("h", HARD, link=name),
        pax((b"path", name.encode())) + header(b"x", FILE),
    ):
        with pytest.raises(FormatError, match=r"has \.\. in its path"):
            lines(tmp_path, archive(Entry("x"), member))


def test_dots_within_names_are_names(tmp_path: Path) -> None:
    names = ["...", "..a", "a..", ".a", "a/...", ".../b"]
    assert set(paths(tmp_path, archive(*map(Entry, ["..a", ".a", "a/...", ".../b"])))) >= {
        "/" + n for n in ("..a", ".a", "a/...", ".../b")
    }
    assert paths(tmp_path, archive(Entry("///a//./b///"), Entry("./c"))) == ["/", "/a", "/a/b", "/c"]
    assert names


@pytest.mark.parametrize(
    ("target", "where"),
    [
        ("/etc", "/etc/x"),
        ("../../../../etc", "/etc/x"),
        ("/../../etc/.", "/etc/x"),
        ("../etc/../etc", "/etc/x"),
        ("nowhere/else", "/d/nowhere/else/x"),
        ("/", "/x"),
        ("..", "/x"),
    ],
)
def test_symlinks_end_within_the_tree(tmp_path: Path, target: str, where: str) -> None:
    first = archive(Entry("etc", DIR), Entry("d", DIR), Entry("d/link", SYM, link=target))
    assert where in paths(tmp_path, first, archive(Entry("d/link/x")))
    assert where in paths(
        tmp_path, archive(Entry("etc", DIR), Entry("d", DIR), Entry("d/link", SYM, link=target), Entry("d/link/x"))
    )


def test_a_symlink_that_is_replaced_leads_nowhere_any_more(tmp_path: Path) -> None:
    data = archive(
        Entry("etc", DIR),
        Entry("l", SYM, link="etc"),
        Entry("l/one"),
        Entry("l", DIR),
        Entry("l/two"),
        Entry("m", SYM, link="l"),
        Entry("m/three"),
    )
    assert paths(tmp_path, data) == ["/", "/etc", "/etc/one", "/l", "/l/three", "/l/two", "/m"]


def test_the_last_component_is_replaced_and_not_followed(tmp_path: Path) -> None:
    assert lines(tmp_path, archive(Entry("f", data=b"old"), Entry("l", SYM, link="f"), Entry("l", data=b"new")))[
        1:
    ] == [
        "/f 3 100644 1 0 0 0 1700000000.0 - old -",
        "/l 3 100644 1 0 0 0 1700000000.0 - new -",
    ]


@pytest.mark.parametrize("target", ["l", "./l", "/l", "k/x"])
def test_symlinks_in_circles(tmp_path: Path, target: str) -> None:
    with pytest.raises(FormatError, match="too many symlinks"):
        lines(tmp_path, archive(Entry("k", SYM, link="l"), Entry("l", SYM, link=target), Entry("l/x")))


def test_as_many_symlinks_are_followed_as_linux_follows(tmp_path: Path) -> None:
    chain = [Entry("l0", DIR), *(Entry(f"l{n}", SYM, link=f"l{n - 1}") for n in range(1, 42))]
    assert "/l0/x" in paths(tmp_path, archive(*chain, Entry("l40/x")))
    with pytest.raises(FormatError, match="l41/x: too many symlinks on its way"):
        lines(tmp_path, archive(*chain, Entry("l41/x")))


def test_long_ways_through_symlinks_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MAX_STEPS", 10_000)
    links = [Entry(f"l{n}", SYM, link=("./" * 1000) + f"l{n + 1}") for n in range(30)]
    with pytest.raises(FormatError, match="too many symlinks"):
        lines(tmp_path, archive(*links, Entry("l30", DIR), *[Entry(f"l0/f{n}") for n in range(9)]))


@pytest.mark.parametrize("name", [".wh.d", "d/.wh..wh..opq"])
def test_whiteouts_again_and_again_come_to_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each goes through all that its own layer has below."""
    monkeypatch.setattr(filesystem, "MAX_STEPS", 10_000)
    lower, files = archive(Entry("d", DIR), Entry("d/old")), [Entry(f"d/{n}") for n in range(300)]
    assert len(lines(tmp_path, lower, archive(*files, *[Entry(name)] * 30))) == 302
    with pytest.raises(TooLargeError, match="its whiteouts take too long"):
        lines(tmp_path, lower, archive(*files, *[Entry(name)] * 40))


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh."])
def test_whiteouts_of_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="a whiteout of nothing"):
        lines(tmp_path, archive(Entry("d", DIR)), archive(Entry(name)))


def listed(directory: Path, *layers: Sequence[str]) -> list[str]:
    """The paths and modes of layers of directories (NAME/), symlinks (NAME -> TARGET) and files."""

    def entry(text: str) -> Entry:
        name, arrow, target = text.partition(" -> ")
        if arrow:
            return Entry(name, SYM, link=target)
        return Entry(name.rstrip("/"), DIR, mode=0o700) if name.endswith("/") else Entry(name, mode=0o600)

    found = lines(directory, *(archive(*map(entry, layer)) for layer in layers))
    return [" ".join(line.split(" ")[:3:2]) for line in found[1:]]


LOWER = ["d/", "d/a", "d/s/", "d/s/b"]
HIDDEN = {
    "a directory": ([".wh.d", "d/x", "d/s/y"], ["/d 40755", "/d/s 40755", "/d/s/y 100600", "/d/x 100600"]),
    "a directory that comes again": ([".wh.d", "d/", "d/x"], ["/d 40700", "/d/x 100600"]),
    "what is in one": (["d/.wh..wh..opq", "d/x", "d/s/y"], ["/d 40700", "/d/s 40755", "/d/s/y 100600", "/d/x 100600"]),
    "a directory in one": (["d/.wh.s", "d/s/y"], ["/d 40700", "/d/a 100600", "/d/s 40755", "/d/s/y 100600"]),
    "a file": (["d/.wh.a", "d/a", "d/s/.wh.b"], ["/d 40700", "/d/a 100600", "/d/s 40700"]),
}
"""What a layer over the lower one has, and what there is then."""


@pytest.mark.parametrize("what", HIDDEN)
def test_a_whiteout_hides_no_entry_of_its_own_layer_whichever_comes_first(tmp_path: Path, what: str) -> None:
    upper, left = HIDDEN[what]
    for order in permutations(upper):
        assert listed(tmp_path, LOWER, order) == left, order


def test_a_symlink_that_was_hidden_leads_nowhere_any_more(tmp_path: Path) -> None:
    found = listed(tmp_path, ["r/", "l -> r", "l/a"], [".wh.l", "l/x"])
    assert found == ["/l 40755", "/l/x 100600", "/r 40700", "/r/a 100600"]


def test_a_whiteout_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="there is a whiteout on its way"):
        lines(tmp_path, archive(Entry("d/.wh.x/y")))
    with pytest.raises(FormatError, match="cannot be the name of a directory"):
        lines(tmp_path, archive(Entry("l", SYM, link=".wh.x"), Entry("l/y")))


@pytest.mark.parametrize("above", ["d", "d -> none", "d -> f"])
@pytest.mark.parametrize("name", ["d/.wh.f", "d/.wh..wh..opq", "d/f/.wh.f"])
def test_a_whiteout_below_what_is_no_directory_hides_nothing(tmp_path: Path, above: str, name: str) -> None:
    assert [line.split(" ")[0] for line in listed(tmp_path, [above, "f"], [name])] == ["/d", "/f"]


def test_a_device_0_0_is_no_whiteout(tmp_path: Path) -> None:
    assert "/d/c" in paths(tmp_path, archive(Entry("d/c")), archive(Entry("d/c", CHAR)))


# Entries that contradict each other or themselves


def summed(raw: bytes) -> bytes:
    """Give a header the checksum that it should have."""
    raw = raw[:148] + b" " * 8 + raw[156:]
    return raw[:148] + b"%06o\0 " % sum(raw) + raw[156:]


def negative(offset: int) -> bytes:
    """A device with −1, as old programs write it, in a field of eight bytes."""
    raw = header(b"c", CHAR)
    return summed(raw[:offset] + b"\xff" * 8 + raw[offset + 8 :])


BAD: dict[str, tuple[str, Any]] = {
    "pax without length": ("without a length", header(b"x", b"x", 4) + padded(b"a=b\n") + header(b"f", FILE)),
    "pax length with a sign": (
        "without a length",
        header(b"x", b"x", 16) + padded(b"+16 path=hidden\n") + header(b"f", FILE),
    ),
    "pax record too long": ("malformed record", header(b"x", b"x", 8) + padded(b"9 a=bcd\n") + header(b"f", FILE)),
    "pax record without key": ("malformed record", header(b"x", b"x", 6) + padded(b"6 =ab\n") + header(b"f", FILE)),
    "pax record without newline": (
        "malformed record",
        header(b"x", b"x", 8) + padded(b"8 a=bcde") + header(b"f", FILE),
    ),
    "pax size": ("is not a number", pax((b"size", b"-1")) + header(b"f", FILE)),
    "pax uid": ("is not a number", pax((b"uid", b"0x1")) + header(b"f", FILE)),
    "pax gid of many digits": ("is not a number", pax((b"gid", b"9" * 5000)) + header(b"f", FILE)),
    "pax time": ("is not a time", pax((b"mtime", b"1e9")) + header(b"f", FILE)),
    "pax size beyond all": ("is no size", pax((b"size", b"9" * 20)) + header(b"f", FILE)),
    "pax before nothing": ("announces another one", pax((b"a", b"b"))),
    "long name before a global header": (
        "where its entry should be",
        header(b"x", b"L", 2) + padded(b"f\0") + header(b"g", b"g", 0) + header(b"f", FILE),
    ),
    "nul in a path": ("has a NUL", pax((b"path", b"a\0b")) + header(b"f", FILE)),
    "nul in a target": ("without NUL", pax((b"linkpath", b"a\0b")) + header(b"f", SYM)),
    "no target": ("1 to 4095 bytes", header(b"f", SYM)),
    "long component": ("too long", pax((b"path", b"a" * 256)) + header(b"f", FILE)),
    "long path": ("too long", pax((b"path", b"a/" * 2100 + b"b")) + header(b"f", FILE)),
    "xattr name": ("name of an extended attribute", pax((b"SCHILY.xattr.", b"1")) + header(b"f", FILE)),
    "xattr value": ("65536 bytes, more than 65535", pax((b"SCHILY.xattr.user.a", b"x" * 65536)) + header(b"f", FILE)),
    "negative size": ("is no size", header(b"f", FILE, -5)),
    "negative size of records": ("has -5 bytes", header(b"x", b"x", -5) + header(b"f", FILE)),
    "time beyond all": ("more than 63 bits", header(b"f", FILE, e=Entry("", mtime=BASE << 60))),
    "time before all": ("more than 63 bits", header(b"f", FILE, e=Entry("", mtime=-BASE << 60))),
    "device number": ("no device number", Entry("c", CHAR, device=(4096, 0))),
    "negative major": ("no device number", negative(329)),
    "negative minor": ("no device number", negative(337)),
    "link to itself": ("does not exist", Entry("l", HARD, link="l")),
    "link into nothing": ("does not exist", Entry("l", HARD, link="d/f")),
    "link through a file": (
        "does not exist",
        b"".join(tar_entry(each, "") for each in (Entry("d"), Entry("f"), Entry("l", HARD, link="d/f"))),
    ),
    "link to the root": ("is a directory", pax((b"linkpath", b"/")) + header(b"l", HARD)),
    "link to what comes later": (
        "does not exist",
        tar_entry(Entry("l", HARD, link="f"), "") + tar_entry(Entry("f"), ""),
    ),
    "file as a directory": ("is not a directory", tar_entry(Entry("f"), "") + tar_entry(Entry("f/x", DIR), "")),
    "pipe with a target as a directory": (
        "is not a directory",
        header(b"d/", DIR) + header(b"p", b"6", link=b"d") + header(b"p/x", FILE),
    ),
    "multi-volume": ("type M are not known", Entry("f", b"M")),
    "octal": ("not an octal number", None),
    "letters": ("is not a number", None),
}


def spoilt(field: bytes) -> bytes:
    raw = header(b"f", FILE)
    return summed(raw[:100] + field + raw[108:])


BAD["octal"] = BAD["octal"][0], spoilt(b"0000698\0")
BAD["letters"] = BAD["letters"][0], spoilt(b"0x12_3 \0")


LIMITS: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "name": ("too long", lambda more: pax((b"path", b"n" * (255 + more))) + header(b"f", FILE)),
    "whiteout": ("too long", lambda more: pax((b"path", b".wh." + b"n" * (255 + more))) + 2 * header(b"f", FILE)),
    "path": ("too long", lambda more: pax((b"path", b"a/" * 2047 + b"b" * (1 + more))) + header(b"f", FILE)),
    "target": ("1 to 4095 bytes", lambda more: tar_entry(Entry("l", SYM, link="t" * (4095 + more)), "")),
    "attribute's name": (
        "1 to 255 bytes",
        lambda more: pax((b"SCHILY.xattr.user." + b"n" * (250 + more), b"1")) + header(b"f", FILE),
    ),
    "attribute": (
        "more than 65535",
        lambda more: pax((b"SCHILY.xattr.user.a", b"x" * (65535 + more))) + header(b"f", FILE),
    ),
    "directory behind a symlink": (
        "cannot be the name of a directory",
        lambda more: tar_entry(Entry("l", SYM, link="t" * (255 + more)), "") + tar_entry(Entry("l/x"), ""),
    ),
    "major": ("no device number", lambda more: tar_entry(Entry("c", CHAR, device=(4095 + more, 0)), "")),
    "minor": ("no device number", lambda more: tar_entry(Entry("c", CHAR, device=(0, (1 << 20) - 1 + more)), "")),
    "records": ("1048576 for one entry", lambda more: pax((b"comment", b"x" * (1048559 + more))) + header(b"f", FILE)),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_what_is_as_large_as_it_may_be_and_one_more(tmp_path: Path, limit: str) -> None:
    words, member = LIMITS[limit]
    assert len(paths(tmp_path, archive(member(0)))) > 1
    with pytest.raises((FormatError, TooLargeError), match=words):
        lines(tmp_path, archive(member(1)))


@pytest.mark.parametrize("case", BAD)
def test_contradictions(tmp_path: Path, case: str) -> None:
    words, member = BAD[case]
    with pytest.raises((FormatError, TooLargeError), match=words) as refusal:
        lines(tmp_path, archive(member))
    assert "\n" not in str(refusal.value)


def test_signed_checksums_and_the_numbers_of_old_programs(tmp_path: Path) -> None:
    raw = header(b"\xff\x7f\xfe", FILE)
    total = sum(byte - 256 if byte > 127 else byte for byte in raw[:148] + b" " * 8 + raw[156:])
    assert paths(tmp_path, archive(raw[:148] + b"%06o\0 " % total + raw[156:])) == ["/", r"/\xff\x7f\xfe"]
    for field in (b"   755 \0", b"755\0\0\0\0\0", b"00000755", b" 000755 ", b"0755\0old", b" 755 \0 9"):
        assert lines(tmp_path, archive(spoilt(field)))[1].split(" ")[2] == "100755"
    assert lines(tmp_path, archive(spoilt(bytes(8))))[1].split(" ")[2] == "100000"


def test_cut_short_anywhere(tmp_path: Path) -> None:
    whole = archive(
        Entry("a", data=b"x" * 100), pax((b"path", b"b" * 200)) + header(b"b", FILE, 10) + padded(b"y" * 10)
    )
    assert len(paths(tmp_path, tar_entry(Entry("a", data=b"x" * 512), ""))) == 2, "a content and nothing behind it"
    # An entry is whole when its data is: the padding of the last one may be missing.
    last_blocks = {len(whole) - 1024, len(whole) - 512}
    for cut in range(0, len(whole), 64):
        if cut == 0 or 612 <= cut <= 1024 or 2570 <= cut <= 3072 or cut in last_blocks:
            assert len(paths(tmp_path, whole[:cut])) == 1 + (cut >= 612) + (cut >= 2570)
        else:
            with pytest.raises(FormatError, match=r"ends within|announces another"):
                lines(tmp_path, whole[:cut])


def test_an_end_where_an_entry_was_announced_shows_while_the_archive_comes(tmp_path: Path) -> None:
    """Not when the layer is read again, which by then has a name."""
    data = archive(Entry("f"), pax((b"a", b"b")))
    with pytest.raises(FormatError, match="announces another one"):
        unpack(Pieces(data, 512), Staging(str(tmp_path)), print, diff_id=digest_of(data), max_inline=1 << 20)


def test_pieces_that_end_where_a_content_begins_or_ends(tmp_path: Path) -> None:
    data = archive(*[Entry(f"f{size}", data=b"x" * 512 * size) for size in (6, 1, 7, 15, 2)])
    for piece in range(4096, len(data), 512):
        made = Layers(tmp_path)
        made.add(data, piece=piece)
        assert made.archive() == data


def test_a_wrong_digest_and_what_it_says(tmp_path: Path) -> None:
    diff_id = "sha256:" + "1" * 64

    def take_apart(data: Pieces) -> None:
        place = Staging(mkdtemp(dir=tmp_path))
        unpack(data, place, lambda *_: None, diff_id=diff_id, max_inline=1 << 30)

    with pytest.raises(CorruptError, match=f"not {diff_id}"):
        take_apart(Pieces(archive(Entry("f")), 99))
    with pytest.raises(FormatError, match=f"layer {diff_id}: .*before byte 512 of the archive"):
        take_apart(Pieces(b"x" * 2000, 99))


# Sparse files


def sparse(*pieces: tuple[int, int], size: int, data: bytes, name: bytes = b"s") -> bytes:
    numbers = b",".join(b"%d,%d" % piece for piece in pieces)
    records = (
        (b"GNU.sparse.map", numbers),
        (b"GNU.sparse.size", b"%d" % size),
        (b"GNU.sparse.numblocks", b"%d" % len(pieces)),
    )
    return pax(*records) + header(name, FILE, len(data)) + padded(data)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (sparse((0, 9), (5, 9), size=99, data=b"x" * 18), "overlap"),
        (sparse((0, 9), size=5, data=b"x" * 9), "do not fit its size"),
        (sparse((0, 9), size=99, data=b"x" * 8), "less content"),
        (sparse((0, 4), (8, 4), size=99, data=b"x" * 4), "less content"),
        (sparse((0, 9), size=99, data=b"x" * 10), "more content"),
        (sparse((0, 9), size=1 << 50, data=b"x" * 9), "bytes"),
        (pax((b"GNU.sparse.map", b"0")) + header(b"s", FILE), "without a size"),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0")) + header(b"s", FILE), "incomplete"),
        (
            pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.map", b"0,1"))
            + header(b"s", FILE),
            "incomplete",
        ),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.major", b"2")) + header(b"s", FILE), "unknown version"),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.numbytes", b"2")) + header(b"s", FILE), "out of order"),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,1")) + header(b"s", b"S"), "sparse in two ways"),
        (
            pax((b"GNU.sparse.realsize", b"9"), (b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"1"))
            + header(b"s", FILE),
            "unknown version",
        ),
        (
            pax((b"GNU.sparse.realsize", b"%d" % (1 << 53)), (b"GNU.sparse.major", b"1")) + header(b"s", FILE),
            "more than 8589934592 bytes",
        ),
    ],
)
def test_maps_of_sparse_files(tmp_path: Path, member: bytes, words: str) -> None:
    with pytest.raises((FormatError, TooLargeError), match=words):
        lines(tmp_path, archive(member))


def version_1(text: bytes, data: bytes = b"", size: int = 99) -> bytes:
    records = (
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"real"),
        (b"GNU.sparse.realsize", b"%d" % size),
    )
    content = padded(text) + data
    return pax(*records) + header(b"GNUSparseFile.0/real", FILE, len(content)) + padded(content)


def test_maps_before_the_content(tmp_path: Path) -> None:
    assert "/real 20 100644 1 0 0 0 1700000000.0 - " + r"\x00\x00ab" + r"\x00" * 16 + " -" in lines(
        tmp_path, archive(version_1(b"1\n2\n2\n", b"ab", size=20))
    )
    for text, words in (
        (b"x\n", "is not a number"),
        (b"x" * 600, "malformed"),
        (b"999999\n", "more than 100000"),
        (b"2\n1\n1\n", "malformed"),
    ):
        with pytest.raises((FormatError, TooLargeError), match=words):
            lines(tmp_path, archive(version_1(text)))
    for content in (b"2\n1\n", b"0\n"):  # a map that is cut off, and one without what fills its block
        with pytest.raises(FormatError, match="less content"):
            lines(tmp_path, archive(version_1(b"", content)))


@pytest.mark.parametrize(("count", "piece"), [(1000, 1), (12_000, 4096)])
def test_a_map_that_comes_in_small_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, piece: int
) -> None:
    """As very small members of a gzip file make it come: it is not read anew for each piece."""
    looked: list[int] = []
    read = expand.map_in_content
    monkeypatch.setattr(expand, "map_in_content", lambda *arguments: looked.append(1) or read(*arguments))
    text = b"%d\n" % count + b"".join(b"%d\n1\n" % (2 * each) for each in range(count))
    layers = Layers(tmp_path)
    layers.add(archive(version_1(text, b"x" * count, size=2 * count)), piece=piece)
    assert b"x\0" * count in layers.objects.values()
    assert len(looked) < 9


@pytest.mark.parametrize(("key", "named"), [(b"GNU.sparse.name", "real"), (b"GNU.sparse.unknown", "p/")])
def test_a_sparse_file_is_named_as_it_is_unpacked(tmp_path: Path, key: bytes, named: str) -> None:
    records = ((b"path", b"p/"), (b"SCHILY.xattr.user.x", bytes(65537)), (b"GNU.sparse.size", b"9"), (key, b"real"))
    with pytest.raises(FormatError, match=f": {named}: extended attribute user.x has 65537 bytes"):
        lines(tmp_path, archive(pax(*records) + header(b"s", FILE)))


def test_sparse_files_beside_each_other(tmp_path: Path) -> None:
    found = lines(
        tmp_path,
        archive(
            sparse((0, 1), size=64, data=b"x"),
            sparse((1, 1), size=65, data=b"y", name=b"t"),
            Entry("u", data=b"z"),
        ),
    )
    fields = [line.split(" ") for line in found[1:]]
    assert [(each[0], each[1], each[10] == "-") for each in fields] == [
        ("/s", "64", True),
        ("/t", "65", False),
        ("/u", "1", True),
    ]


def old_sparse(pieces: int, rest: bytes = b"") -> bytes:
    """An old GNU header with so many pieces of a byte each, four in itself and the others in blocks that follow."""
    each = [b"%011o\0%011o\0" % (2 * number, 1) for number in range(pieces)]
    maps = [b"".join(each[:4]).ljust(96, b"\0"), *(b"".join(each[at : at + 21]) for at in range(4, pieces, 21))]
    raw = header(b"s", b"S", pieces)
    raw = summed(raw[:386] + maps[0] + bytes([len(maps) > 1]) + b"%011o\0" % (2 * pieces) + raw[495:])
    more = [block.ljust(504, b"\0") + bytes([number < len(maps) - 1]) for number, block in enumerate(maps[1:], 1)]
    return raw + b"".join(map(padded, more)) + padded(b"x" * pieces)


def test_a_piece_of_less_than_nothing(tmp_path: Path) -> None:
    raw = old_sparse(1)
    with pytest.raises(FormatError, match="overlap"):
        lines(tmp_path, archive(summed(raw[:398] + b"\xff" * 12 + raw[410:512]) + raw[512:]))


def test_sparse_files_of_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs_oci.formats.tar.sparse._MAX_PIECES", 30)

    def many(pieces: int) -> Iterator[bytes]:
        yield sparse(*((2 * each, 1) for each in range(pieces)), size=2 * pieces, data=b"x" * pieces)
        yield old_sparse(pieces)

    for member in many(30):
        assert "/s 60 100644 1 0 0 0 1700000000.0 - " + r"x\x00" * 30 + " -" in lines(tmp_path, archive(member))
    for member in many(31):
        with pytest.raises(TooLargeError, match="more than 30 pieces"):
            lines(tmp_path, archive(member))


def test_sparse_files_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("composefs_oci.layers.unpacking.MAX_EXPANDED", 1000)
    monkeypatch.setattr(expand, "MAX_EXPANDED", 1000)
    lines(tmp_path, archive(sparse((0, 1), size=500, data=b"x")))
    with pytest.raises(TooLargeError, match="have more than 1000 bytes when expanded"):
        lines(tmp_path, archive(sparse((0, 1), size=500, data=b"x") * 3))


# Size


class Endless:
    """An archive that is made while it is read."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def read(self, _size: int, /) -> bytes:
        return next(self._parts, b"")


def measure(staging: Path, parts: Callable[[], Iterable[bytes]], max_inline: int = 1 << 30) -> int:
    """Take an archive apart whose files nobody keeps; return the peak of memory."""
    place = Staging(mkdtemp(dir=staging))
    whole = hashlib.sha256()
    for part in parts():
        whole.update(part)
    tracemalloc.start()
    try:
        unpack(
            Endless(iter(parts())),
            place,
            lambda name, *_: Path(place.path_of(name)).unlink(),
            diff_id=digest_of_hash(whole),
            max_inline=max_inline,
        )
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_follow_a_files_size(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield header(b"big", FILE, 100 << 20)
        piece = bytes(256 << 10)
        for _ in range(400):
            yield piece
        yield END

    assert measure(tmp_path, parts) < 4 << 20


def test_memory_does_not_follow_the_number_of_entries(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        for number in range(100):
            yield b"".join(header(b"f%d/%d" % (number, each), FILE) for each in range(100))
        yield END

    assert measure(tmp_path, parts) < 1 << 20


def test_too_many_headers(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError, match="have more than 5000 bytes"):
        measure(tmp_path, lambda: [header(b"f", FILE) * 20], max_inline=5000)
    with pytest.raises(TooLargeError, match="have more than 5000 bytes"):
        measure(tmp_path, lambda: [END + bytes(9000)], max_inline=5000)


def test_too_many_names_and_too_much_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MAX_NAMES", 50)
    with pytest.raises(TooLargeError, match="more than 50 files"):
        lines(tmp_path, archive(Entry("a/" * 60 + "b")))
    monkeypatch.setattr(filesystem, "MAX_TEXT", 1000)
    monkeypatch.setattr(filesystem, "MAX_NAMES", 5000)
    with pytest.raises(TooLargeError, match="more than 1000 bytes of names"):
        lines(tmp_path, archive(*[Entry(f"f{n}", xattrs={"user.a": b"x" * 300 + b"%d" % n}) for n in range(4)]))


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        (Entry("name", DIR), 4),
        (Entry(".wh.name"), 8),
        (Entry("d/name"), 5),
        (Entry("l", SYM, link="target"), 7),
        (Entry("f", data=b"content"), 8),
        (Entry("f", data=b"c" * 64), 65),
        (Entry("f", data=b"c" * 65), 65),  # an object's id
        (Entry("d", DIR, xattrs={"user.a": b"value"}), 1 + len(" user.a=value")),
    ],
)
def test_what_counts_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Entry, size: int) -> None:
    monkeypatch.setattr(filesystem, "MAX_TEXT", size)
    assert lines(tmp_path, archive(entry))
    monkeypatch.setattr(filesystem, "MAX_TEXT", size - 1)
    with pytest.raises(TooLargeError, match=f"more than {size - 1} bytes of names"):
        lines(tmp_path, archive(entry))


@pytest.mark.parametrize("entry", [Entry("d", DIR), Entry("h", HARD, link="f"), Entry(".wh.x"), Entry(".wh..wh.x")])
def test_entries_that_change_nothing_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: Entry) -> None:
    monkeypatch.setattr(filesystem, "MAX_NAMES", 50)
    layers = [archive(Entry("f"), Entry("h", HARD, link="f"), Entry("d", DIR)), archive(*[entry] * 10)]
    assert len(lines(tmp_path, *layers, *layers[1:] * 3)) == 4
    with pytest.raises(TooLargeError, match="more than 50 files"):
        lines(tmp_path, *layers, *layers[1:] * 4)


def test_hard_links_by_the_thousand(tmp_path: Path) -> None:
    links = [Entry(f"l{n:05}", HARD, link=f"l{n - 1:05}") for n in range(1, 3000)]
    found = lines(tmp_path, archive(Entry("l00000", data=b"x"), *links))
    assert found[1] == "/l00000 1 100644 3000 0 0 0 1700000000.0 - x -"
    assert found[-1] == "/l02999 0 @100644 1 0 0 0 0.0 /l00000 - -"


def test_a_tree_as_deep_as_a_path_can_be(tmp_path: Path) -> None:
    assert len(paths(tmp_path, archive(Entry("a/" * 2000 + "b")))) == 2002


# Streams that are not split as a layer's


def test_streams_that_are_split_wrongly(tmp_path: Path) -> None:
    made = Layers(tmp_path)
    data = archive(Entry("a", data=b"x" * 100), Entry("b", data=b"y" * 64))
    layer = made.add(data)
    assert layer.chunks == [-512, 0, -(len(data) - 612)]

    def read(**changes: Any) -> None:
        list(entries(layer._replace(**changes)))

    read()
    for chunks in ([-len(data) + 100], [-511, 0, -1], [-512, 1, -1], [0, -512], [-512, 0, -1, 0]):
        with pytest.raises(CorruptError, match=f"^layer {layer.name}: ") as caught:
            read(chunks=chunks)
        assert caught.value.subject == layer.name
    for changes in ({"size": len(data) + 1}, {"object_refs": []}):
        with pytest.raises(CorruptError):
            read(**changes)
    inline = tmp_path / "inline"
    inline.write_bytes(data)  # the content of a is inline, where an object has to be
    with pytest.raises(ExtError):
        read(inline=str(inline), chunks=[-len(data)], object_refs=[])
    for size, words in ((500, "within a header"), (1000, "within a header"), (1436 + 63, "within an entry")):
        inline.write_bytes(Path(layer.inline).read_bytes()[:size])
        with pytest.raises(FormatError, match=f"ends {words}"):
            read(inline=str(inline), chunks=[-512, 0, 512 - size], size=size + 100)


def test_a_stream_of_something_else_is_no_layer(tmp_path: Path) -> None:
    diff_id = "sha256:" + "0" * 64

    def handler(_request: Request, core: Core) -> None:
        stream = core.stream_put(BLOB, inline=core.staging.write(END), chunks=[-1024]).result()
        core.publish(streams=[{"name": layer_stream(diff_id), "id": stream["id"]}]).result()
        open_layer(core, diff_id)

    with pytest.raises(CorruptError, match=f"{layer_stream(diff_id)} is not the stream of a layer of files"):
        MemoryCore(tmp_path).run(handler, ["read"])


def test_sparse_files_that_nobody_wrote_whole(tmp_path: Path) -> None:
    """As a program stores a layer that knows nothing of them: their pieces are there, and no object for them."""

    def read(size: int, *, is_held: bool) -> Any:
        data = archive(sparse((0, 1), size=size, data=b"x"))

        def handler(_request: Request, core: Core) -> dict[str, Any]:
            whole = core.staging.write(b"x" + bytes(98))
            refs = [core.object_put([{"name": whole}]).result()[0]["id"]] if is_held else []
            inline = core.staging.write(data)
            stream = core.stream_put(LAYER, inline=inline, chunks=[-len(data)], object_refs=refs).result()
            core.publish(streams=[{"name": layer_stream(digest_of(data)), "id": stream["id"]}]).result()
            return {"found": [content for _, content in entries(open_layer(core, digest_of(data)))], "refs": refs}

        return MemoryCore(tmp_path).run(handler, ["read"])

    held = read(99, is_held=True)
    assert held["found"] == held["refs"]
    with pytest.raises(CorruptError, match="does not hold the sparse file, only its pieces"):
        read(99, is_held=False)
    with pytest.raises(TooLargeError, match="more than 8589934592"):
        read((8 << 30) + 1, is_held=False)
