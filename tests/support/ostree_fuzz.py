"""Subjects for fuzzing ostree's formats: what reads them, sound cases to begin with, and ways to damage these."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, NamedTuple

from composefs_ext.errors import (
    CorruptError,
    FormatError,
    MissingObjectError,
    NotFoundError,
    TooLargeError,
    UnsupportedError,
)
from composefs_ext.packs import Packs
from composefs_ext.staging import Staging
from composefs_ostree import inspect
from composefs_ostree.deltas import listing, output
from composefs_ostree.deltas.bspatch import bspatch
from composefs_ostree.deltas.payload import Members, Unpacking, split
from composefs_ostree.deltas.program import Program
from composefs_ostree.deltas.superblock import parse_superblock
from composefs_ostree.dumptext import write_dump
from composefs_ostree.fetching.content import FileFetch
from composefs_ostree.formats import gvariant, objects, summary
from composefs_ostree.formats.commit_stream import CommitStream, Entry, write
from composefs_ostree.formats.fileheader import checksum_header, make_head, parse_head
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.sizes import FileSizes
from composefs_ostree.remotes import index
from composefs_ostree.tree import load
from support.ostree_delta import LINK, REGULAR, SmallCommit, control, file_id, operation, part, part_file, payload
from support.ostree_forge import swap

__all__ = ["SUBJECTS", "Subject", "accepts", "damaged"]

DELTA_ERRORS = (FormatError, CorruptError, UnsupportedError, MissingObjectError, TooLargeError)
"""What a delta may be refused with; all of them have one base and become one line."""

OLD = bytes(range(256)) * 3
SUMMARY = "(a(s(taya{sv}))a{sv})"


class Subject(NamedTuple):
    """Something to fuzz: ``read`` returns if it takes a case, and raises one of ``refusals`` if not."""

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], None]
    refusals: tuple[type[Exception], ...] = (FormatError,)


def accepts(subject: Subject, case: bytes) -> bool:
    """Tell whether a case is taken; what is neither taken nor properly refused goes through."""
    try:
        subject.read(case)
    except subject.refusals:
        return False
    return True


# Damage

_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x10000, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def damaged(seeds: list[bytes], count: int, seed: int = 7) -> Iterator[bytes]:
    """Yield seeds with bytes changed, removed, repeated and taken from each other; the same ones for each ``seed``."""
    chooser = random.Random(seed)
    for _ in range(count):
        data = bytearray(chooser.choice(seeds))
        for _ in range(chooser.choice((1, 1, 1, 2, 3, 6))):
            _damage(data, chooser, seeds)
        yield bytes(data)


def _damage(data: bytearray, chooser: random.Random, seeds: list[bytes]) -> None:
    place, size = chooser.randrange(len(data) + 1), chooser.randint(1, 12)
    match chooser.randrange(10):
        case 0 | 1:
            data[place : place + 1] = chooser.randbytes(1)
        case 2:
            if place < len(data):
                data[place] ^= 1 << chooser.randrange(8)
        case 3:  # where offsets are
            place = max(0, len(data) - size)
            if data:
                data[place] = (data[place] + chooser.choice((-8, -2, -1, 1, 2, 8))) % 256
        case 4:
            del data[place : place + size]
        case 5:
            data[place:place] = data[place : place + size] * chooser.randint(1, 3)
        case 6:
            other = chooser.choice(seeds)
            start = chooser.randrange(len(other) + 1)
            data[place : place + size] = other[start : start + chooser.randint(0, 40)]
        case 7:
            width = chooser.choice((1, 2, 4, 8))
            number = chooser.choice((*_NUMBERS, len(data), chooser.getrandbits(16))) % (1 << 8 * width)
            data[place : place + width] = number.to_bytes(width, chooser.choice(("little", "big")))
        case 8:
            del data[place:]
        case _:
            other = chooser.choice(seeds)
            data[place:] = other[min(place, len(other)) :]


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
            return chooser.choice(_NUMBERS)
        case "s" | "o" | "g":
            return chooser.choice(["", "a", "text", "ä", "x" * chooser.randrange(300)])
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

XATTRS = ((b"security.selinux", b"label\0"), (b"user.x", b""))


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
            sizes = FileSizes(commit)
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
    fetch = FileFetch(bytes(32), "staged", 1 << 20, Packs(Staging("."), ()))
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


# Deltas

COMMIT = SmallCommit({"a": b"content", "b": b"more" * 100}, link="a")


def superblock_seeds() -> list[bytes]:
    one, raw = COMMIT.part(), COMMIT.part("")
    detached = {f"{listing.delta_path(None, COMMIT.id)}/commitmeta": Variant("a{sv}", {"k": Variant("s", "v")})}
    plain = [
        COMMIT.superblock([one]),
        COMMIT.superblock([one, raw], order="B"),
        COMMIT.superblock([one], order=None),
        COMMIT.superblock([raw], inline=True),
        COMMIT.superblock([raw, one], inline=True, metadata=detached),
        COMMIT.superblock([], origin=bytes(32), fallbacks=[(1, bytes(32), 5, 6), (1, COMMIT.id, 1 << 40, 1 << 41)]),
        COMMIT.superblock([one] * 3, origin=bytes(32)),
    ]
    signatures = {"ostree.sign.ed25519": Variant("aay", [bytes(64)])}
    signed = gvariant.encode("(taya{sv})", (int.from_bytes(b"OSTSGNDT", "little"), plain[0], signatures))
    return [*plain, signed]


def read_superblock(case: bytes) -> None:
    delta = parse_superblock(case)
    assert sha256(delta.commit).digest() == delta.to
    for each in delta.parts:
        assert each.object_count > 0
        assert [len(each.object(number)[1]) for number in range(each.object_count)] == [32] * each.object_count


def index_seeds() -> list[bytes]:
    listed = Variant("a{sv}", {name: Variant("ay", bytes(32)) for name in ("ab" * 32, f"{'ab' * 32}-{'cd' * 32}")})
    metadata = [
        {},
        {"ostree.static-deltas": listed},
        {"ostree.summary.indexed-deltas": Variant("b", True)},
        {"ostree.summary.indexed-deltas": Variant("b", False), "ostree.static-deltas": listed, "z": Variant("s", "")},
    ]
    refs = [("a", (5, bytes(32), {}))]
    return [b"i" + gvariant.encode("a{sv}", each) for each in metadata] + [
        b"s" + gvariant.encode(SUMMARY, (rows, each)) for each in metadata for rows in ([], refs)
    ]


def read_index(case: bytes) -> None:
    read = listing.summary_deltas if case[:1] == b"s" else listing.parse_index
    digests = read(case[1:]).digests
    for held in ([], [bytes([0xAB]) * 32]):
        chosen = listing.choose(digests, bytes([0xCD]) * 32, held)
        assert chosen is None or len(chosen[1]) == 32


def lenient(_object_id: bytes, _digest: bytes) -> None:
    """Stand in for the check of a checksum, which would end nearly all programs at their first object."""


_CHECK = output._check


@contextlib.contextmanager
def checking(is_on: bool) -> Iterator[None]:
    output._check = _CHECK if is_on else lenient
    try:
        yield
    finally:
        output._check = _CHECK


def sources(wanted: bytes) -> memoryview:
    if wanted != file_id(OLD):
        raise MissingObjectError("no such file")
    return memoryview(OLD)


CONTENT = b"some content " * 30
PATCHED = OLD[:300] + b"literal" + OLD[500:]
PATCH = control(300, 7, 200) + bytes(300) + b"literal" + control(268, 0, 0) + bytes(268)
MADE = [
    (int(ObjectType.DIRTREE), sha256(COMMIT.tree).digest()),
    (int(ObjectType.FILE), file_id(CONTENT)),
    (int(ObjectType.FILE), file_id(b"", LINK, b"some")),
    (int(ObjectType.FILE), file_id(PATCHED)),
    (int(ObjectType.FILE), file_id(OLD[5:50] + b"some")),
    (int(ObjectType.DIRMETA), sha256(COMMIT.meta).digest()),
]
BLOB = COMMIT.tree + COMMIT.meta + CONTENT + file_id(OLD) + PATCH
_AT = [len(COMMIT.tree), len(COMMIT.tree + COMMIT.meta), len(COMMIT.tree + COMMIT.meta + CONTENT)]
OPERATIONS = [
    operation("S", len(COMMIT.tree), 0),
    operation("S", 0, 0, len(CONTENT), _AT[1]),
    operation("S", 1, 0, 4, _AT[1]),
    operation("o", 0, 0, len(PATCHED))
    + operation("r", _AT[2])
    + operation("B", _AT[2] + 32, len(PATCH))
    + operation("c"),
    operation("o", 0, 0, 49)
    + operation("r", _AT[2])
    + operation("w", 45, 5)
    + operation("R")
    + operation("w", 4, _AT[1])
    + operation("c"),
    operation("S", len(COMMIT.meta), _AT[0]),
]


def run_program(case_part: Any, members: Members, is_checked: bool) -> None:
    with checking(is_checked):
        packs = Packs(Staging("."), ())
        for _, data, _, staged in Program(case_part, members, sources, "staged", 500, packs).run():
            assert isinstance(data, bytes)
            if staged is not None:
                assert isinstance(staged, str)
                os.unlink(staged)


def program_seeds() -> list[bytes]:
    """A byte whether checksums count, how many of the objects are announced, the program."""
    whole = b"".join(OPERATIONS)
    made = [b"%c\6%b" % (flag, whole) for flag in (0, 1) for _ in range(6)]
    return made + [b"\1\6" + b"".join(OPERATIONS[:count]) for count in range(6)] + [b"\0\1" + OPERATIONS[0]]


def read_program(case: bytes) -> None:
    flags, count = (case[0], case[1]) if len(case) > 1 else (0, 0)
    announced = part(b"", MADE[: count % 7], 100_000)
    modes = [REGULAR, LINK, (0, 0, 0o40755), (1 << 31, 5, 0o104755)]
    members = Members(modes, [b"", objects.make_xattrs(XATTRS), b"\1"], memoryview(BLOB), memoryview(case[2:]))
    run_program(announced, members, bool(flags & 1))


def part_seeds() -> list[bytes]:
    files = [part_file(payload(BLOB, b"".join(OPERATIONS)), how) for how in ("", "", "x")]
    return [b"%c%b" % (flag, each) for each in files for flag in (0, 1)]


def read_part(case: bytes) -> None:
    flags, file = case[:1], case[1:]
    unpacking = Unpacking(20_000)
    try:
        unpacking.feed(file[: len(file) // 2])
        unpacking.feed(file[len(file) // 2 :])
        members = split(unpacking.finish())
    finally:
        unpacking.discard()
    run_program(part(file, MADE, 100_000), members, flags == b"\0")


def patch_seeds() -> list[bytes]:
    """Two bytes for the size of the new content, the patch."""
    patches = [
        (len(PATCHED), PATCH),
        (300, control(100, 0, -100) + b"\1" * 100 + control(200, 0, 0) + bytes(200)),
        (60, control(10, 50, 9000) + b"\xff" * 10 + b"x" * 50),
        (40, control(20, 0, -500) + bytes(20) + control(20, 0, 6000) + b"\x80" * 20),
        (0, b""),
    ]
    return [size.to_bytes(2, "little") + patch for size, patch in patches]


def patched(old: bytes, patch: bytes, size: int) -> bytes:
    """The new content, byte by byte; ValueError if the patch is not a right one."""
    made = bytearray()
    position = 0
    stream = io.BytesIO(patch)
    while len(made) < size:
        numbers = struct.unpack("<QQQ", _exactly(stream, 24))
        added, literal, seek = (n if n < 1 << 63 else (1 << 63) - n for n in numbers)
        if min(added, literal) < 0 or len(made) + added + literal > size:
            raise ValueError
        for change in _exactly(stream, added):
            made.append((change + (old[position] if 0 <= position < len(old) else 0)) % 256)
            position += 1
        made += _exactly(stream, literal)
        position += seek
    if stream.read():
        raise ValueError
    return bytes(made)


def _exactly(stream: io.BytesIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError
    return data


def read_patch(case: bytes) -> None:
    size, patch = int.from_bytes(case[:2], "little"), case[2:]
    try:
        expected = patched(OLD, patch, size)
    except ValueError:
        expected = None
    made = b"".join(bspatch(memoryview(OLD), memoryview(patch), size))
    assert made == expected


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
        assert found.commit == commit
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
            for subset in index.parse_index(case[1:]).values():
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
    write_dump(io.BytesIO(), load(stream), keep_nul=False)


SUBJECTS = [
    Subject("gvariant", gvariant_seeds, read_gvariant),
    Subject("objects", object_seeds, read_object),
    Subject("filez", filez_seeds, read_filez, (FormatError, CorruptError)),
    Subject("superblock", superblock_seeds, read_superblock, (FormatError, CorruptError, UnsupportedError)),
    Subject("delta-index", index_seeds, read_index),
    Subject("delta-part", part_seeds, read_part, DELTA_ERRORS),
    Subject("delta-program", program_seeds, read_program, DELTA_ERRORS),
    Subject("bspatch", patch_seeds, read_patch, (CorruptError,)),
    Subject("summary", summary_seeds, read_summary),
    Subject("summary-index", subset_seeds, read_subset, (FormatError, TooLargeError)),
    Subject("commit-stream", stream_seeds, read_stream, (FormatError, CorruptError, NotFoundError, TooLargeError)),
]
