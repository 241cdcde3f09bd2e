"""Subjects for fuzzing ostree's formats: what reads them, and sound cases to begin with."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import struct
import zlib
from hashlib import sha256
from typing import Any

from composefs_ext.errors import (
    CorruptError,
    FormatError,
    NotFoundError,
    TooLargeError,
)
from composefs_ext.packs import Packs
from composefs_ext.staging import Staging
from composefs_ostree.commands import inspect
from composefs_ostree.fetching.content import FileFetch
from composefs_ostree.fetching.stage import SmallContents
from composefs_ostree.formats import gvariant, objects, summary
from composefs_ostree.formats.commit_stream import CommitStream, Entry, write
from composefs_ostree.formats.fileheader import checksum_header, make_head, parse_head
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.sizes import FileSizes
from composefs_ostree.held.dumptext import DumpText
from composefs_ostree.held.tree import load
from composefs_ostree.remotes import index
from support.fuzzing import NUMBERS, Subject
from support.ostree_delta import LINK, REGULAR, file_id
from support.ostree_forge import swap
from support.ostree_fuzz_deltas import COMMIT, DELTAS, OLD, SUMMARY, XATTRS

__all__ = ["SUBJECTS"]

# GVariant: the type, a newline, the value

_TYPES = ["a{sv}", "(a{sv}aya(say)sstayay)", SUMMARY, "(uuua(ayay))", "as", "a(yaytt)", "(yv)", "m(sv)", "ma{ub}", "d"]


def random_type(chooser: random.Random, depth: int = 3) -> str:
    kind = chooser.randrange(10 if depth else 4)
    match kind:
        case 4:
            return "v"
        case 5:
            return "a" + random_type(chooser, depth - 1)
        case 6:
            return "m" + random_type(chooser, depth - 1)
        case 7 | 8:
            return f"({''.join(random_type(chooser, depth - 1) for _ in range(chooser.randrange(4)))})"
        case 9:
            return f"a{{{chooser.choice('suty')}{random_type(chooser, depth - 1)}}}"
        case _:
            return chooser.choice(["y", "b", "n", "q", "i", "u", "x", "t", "h", "d", "s", "o", "g", "ay"])


_INTEGERS = {"y": (0, 8), "n": (15, 15), "q": (0, 16), "i": (31, 31), "h": (31, 31), "u": (0, 32), "x": (63, 63)}


def random_value(chooser: random.Random, of: gvariant.Type, depth: int = 2) -> Any:
    match of.kind:
        case "b":
            return chooser.random() < 0.5
        case "d":
            return chooser.choice((0.0, -1.5, float("inf"), 1e300))
        case "t":
            return chooser.choice(NUMBERS)
        case "s":
            return chooser.choice(["", "a", "text", "ä", "x" * chooser.randrange(300)])
        case "o":
            return chooser.choice(["/", "/a", "/a/B_2"])
        case "g":
            return chooser.choice(["", "s", "a{sv}(yb)", "y" * chooser.randrange(256)])
        case "v":
            signature = random_type(chooser, max(depth - 1, 0))
            return Variant(signature, random_value(chooser, gvariant.parse_type(signature), depth - 1))
        case "m":
            return None if chooser.random() < 0.4 else (random_value(chooser, of.members[0], depth),)
        case "a":
            element, size = of.members[0], chooser.choice((0, 0, 1, 2, 5))
            if element.kind == "y":
                return chooser.randbytes(size)
            if element.kind == "{":
                return dict(tuple(random_value(chooser, each, depth) for each in element.members) for _ in range(size))
            return [random_value(chooser, element, depth) for _ in range(size)]
        case "(" | "{":
            return tuple(random_value(chooser, member, depth) for member in of.members)
        case _:
            negative, bits = _INTEGERS[of.kind]
            return chooser.getrandbits(bits) - (1 << negative if negative and chooser.random() < 0.5 else 0)


def gvariant_seeds() -> list[bytes]:
    chooser = random.Random(1)
    signatures = [*_TYPES * 6, *(random_type(chooser) for _ in range(140))]
    return [
        signature.encode() + b"\n" + gvariant.encode(signature, random_value(chooser, gvariant.parse_type(signature)))
        for signature in signatures
    ]


def read_gvariant(case: bytes) -> None:
    signature, _, data = case.partition(b"\n")
    for alignment in (1, 8):
        with contextlib.suppress(FormatError):
            for element in gvariant.array_elements(memoryview(data), alignment):
                assert len(element) <= len(data)
    value = gvariant.decode(signature.decode("latin-1"), data)
    assert gvariant.encode(signature.decode(), value) == data
    inspect.plain(value)


# Objects: a letter for the kind, the object


def object_seeds() -> list[bytes]:
    metadata = {
        "ostree.ref-binding": Variant("as", ["a", "b"]),
        "version": Variant("s", "1"),
        "ostree.sizes": Variant("aay", [bytes(32) + b"\x85\x01\x20\x01", bytes([7]) * 32 + b"\x01\x02"]),
        "any": Variant("(xmvd)", (-5, (Variant("b", True),), 2.5)),
    }
    ids = bytes(32), bytes([1]) * 32
    commits = [
        objects.Commit({}, None, "", "", 0, *ids),
        objects.Commit(metadata, bytes(32), "subject", "body\n" * 60, 1_700_000_000, *ids),
        objects.Commit({"big": Variant("ay", bytes(70_000))}, None, "s", "", (1 << 64) - 1, *ids),
    ]
    names = [b"a", b"b c", "ä".encode(), b"x" * 255]
    trees = [
        objects.Dirtree([], []),
        objects.Dirtree([(name, ids[0]) for name in sorted(names)], []),
        objects.Dirtree([(b"f", ids[0])], [(name, *ids) for name in sorted(names)]),
        objects.Dirtree([(b"%03d" % number, ids[1]) for number in range(20)], [(b"~", *ids)]),
    ]
    heads = [
        make_head(0, 0, 0, 0o100644, b"", b""),
        make_head(5, 1, 2, 0o104755, b"", objects.make_xattrs(XATTRS)),
        make_head(0, 0, 0, 0o120777, b"target", b""),
        make_head(1 << 40, 70_000, 0, 0o100000, b"", objects.make_xattrs(((b"user.l", bytes(300)),))),
    ]
    return [
        *(b"c" + objects.make_commit(each) for each in commits),
        *(b"t" + objects.make_dirtree(each) for each in trees),
        b"m" + objects.make_dirmeta(objects.Dirmeta(0, 0, 0o40755, ())),
        b"m" + objects.make_dirmeta(objects.Dirmeta(5, 70_000, 0o41777, XATTRS)),
        b"x" + objects.make_xattrs(XATTRS),
        b"x" + objects.make_xattrs(tuple((b"user.%02d" % number, b"v" * number) for number in range(40))),
        *(b"h" + each for each in heads),
    ]


def read_object(case: bytes) -> None:
    kind, data = case[:1], case[1:]
    match kind:
        case b"c":
            commit = objects.parse_commit(data)
            assert objects.make_commit(commit) == data
            inspect.metadata_text(commit)
            inspect.commit_text(bytes(32), commit).encode()
            inspect.commit_facts(bytes(32), commit)
            sizes = FileSizes(commit, {})
            told = commit.metadata.get("ostree.sizes")
            if told is not None and told.signature == "aay":
                assert all((sizes.get(entry[:32]) or 0) >= 0 for entry in told.value)
        case b"t":
            assert objects.make_dirtree(objects.parse_dirtree(data)) == data
        case b"m":
            assert objects.make_dirmeta(objects.parse_dirmeta(data)) == data
        case b"x":
            assert objects.make_xattrs(objects.parse_xattrs(data, "attributes")) == data
        case b"h":
            head = parse_head(data)
            xattrs = objects.make_xattrs(head.xattrs)
            assert make_head(head.size, head.uid, head.gid, head.mode, head.target, xattrs) == data
            checksum_header(data)
        case _:
            raise FormatError("no such kind")


# Content of archives: a .filez, whose id is not checked in half of the cases


def filez_seeds() -> list[bytes]:
    made = []
    for content in (b"", b"small", b"x" * 5000, random.Random(3).randbytes(3000)):
        for level in (0, 6):
            packer = zlib.compressobj(level, zlib.DEFLATED, -15)
            made.append(make_head(len(content), *REGULAR, b"", b"") + packer.compress(content) + packer.flush())
    made.append(make_head(0, *LINK, b"target", b""))
    made.append(make_head(5, *REGULAR, b"", objects.make_xattrs(XATTRS)) + zlib.compress(b"12345", wbits=-15))
    return [b"%c%b" % (flag, each) for each in made for flag in (0, 1)]


def read_filez(case: bytes) -> None:
    at_once, data = case[:1] != b"\0", case[1:]
    fetch = FileFetch(bytes(32), "staged", SmallContents(1 << 20, Packs(Staging("."), ())))
    fetch.begin()
    try:
        for start in range(0, len(data), max(1, len(data) if at_once else 700)):
            if fetch.take(data[start : start + (len(data) if at_once else 700)]) is not None:
                break
        fetch.finish()
    except CorruptError as error:
        if "checksum" not in str(error):  # the content was read to its end, and is of course another one
            raise
    finally:
        fetch.discard()


# Summaries


def summary_seeds() -> list[bytes]:
    facts = {"ostree.commit.timestamp": Variant("t", swap(1_700_000_000, 8)), "v": Variant("s", "1")}
    refs = [(name, (swap(300, 8) if name == "b" else 300, bytes(32), facts)) for name in ("a", "b", "os/stable")]
    other = {"org.example.Other": refs[:1], "org.example.Third": []}
    collections = {
        summary.COLLECTION: Variant("s", "org.example.Os"),
        "ostree.summary.collection-map": Variant("a{sa(s(taya{sv}))}", other),
    }
    many = [(f"r{number:03}", (100, bytes(32), {})) for number in range(12)]
    metadata = {"ostree.summary.last-modified": Variant("t", 5), "xa.cache": Variant("v", Variant("a{s(tts)}", {}))}
    rows = [([], {}), (refs, {}), (refs, collections), (refs, metadata | collections), (many, metadata), ([], metadata)]
    return [gvariant.encode(SUMMARY, each) for each in rows]


def read_summary(case: bytes) -> None:
    summary.find_ref(case, "os/stable")
    summary.find_ref(case, "a", "org.example.Os")
    summary.find_ref(case, "a", "org.example.Other")
    summary.metadata_value(case, "ostree.summary.last-modified")
    for name, commit in [*summary.list_refs(case).items()][:3]:
        found = summary.find_ref(case, name)
        assert found is not None
        assert found.commit_id == commit
    summary.collections(case)


def subset_seeds() -> list[bytes]:
    """A letter for the kind: the index, gzip, a delta of summaries."""
    subsets = {name: (bytes(32), [bytes([1]) * 32] * 3, {"k": Variant("u", 1)}) for name in ("x86_64", "aarch64")}
    values = [({}, {}), (subsets, {"": Variant("y", 1)})]
    indexes = [gvariant.encode("(a{s(ayaaya{sv})}a{sv})", each) for each in values]
    words = [0 << 28 | 300, 1 << 28 | 100, 2 << 28 | 10, 0 << 28 | 300]
    delta = b"xadf" + struct.pack(f"<I{len(words)}I", len(words), *words) + b"0123456789"
    packed = [gzip.compress(each, mtime=0) for each in (b"", b"summary" * 50)]
    return [*(b"i" + each for each in indexes), *(b"g" + each for each in packed), b"d" + delta, b"dxadf" + bytes(4)]


def read_subset(case: bytes) -> None:
    match case[:1]:
        case b"i":
            for subset in index.parse_index(case[1:])[0].values():
                assert subset.path.endswith(".gz")
                subset.delta_path(subset.digest)
        case b"g":
            assert len(index.gunzip(case[1:], 5000)) <= 5000
        case _:
            assert len(index.apply_summary_delta(OLD, case[1:], 5000)) <= 5000


# Streams of commits


def stream_seeds() -> list[bytes]:
    made = []
    for subpaths in (None, [], ["/a"], ["/a", "/usr/share"]):
        entries = {sha256(data).digest(): Entry(data, None) for data in (COMMIT.commit, COMMIT.tree, COMMIT.meta)}
        for content in COMMIT.contents.values():
            head = make_head(len(content), *REGULAR, b"", b"")
            is_large = len(content) > 64
            entries[file_id(content)] = Entry(head if is_large else head + content, "ab" * 32 if is_large else None)
        entries[file_id(b"", LINK, b"a")] = Entry(make_head(0, *LINK, b"a", b""), None)
        out = io.BytesIO()
        write(out, COMMIT.id, entries, subpaths)
        made.append(out.getvalue())
    return made


def read_stream(case: bytes) -> None:
    stream = CommitStream(case, ["ab" * 32])
    DumpText(load(stream), io.BytesIO(), keep_nul=False).finish()


SUBJECTS = [
    Subject("gvariant", gvariant_seeds, read_gvariant),
    Subject("objects", object_seeds, read_object),
    Subject("filez", filez_seeds, read_filez, (FormatError, CorruptError)),
    *DELTAS,
    Subject("summary", summary_seeds, read_summary),
    Subject("summary-index", subset_seeds, read_subset, (FormatError, TooLargeError)),
    Subject("commit-stream", stream_seeds, read_stream, (FormatError, CorruptError, NotFoundError, TooLargeError)),
]
