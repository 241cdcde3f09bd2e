"""Subjects for fuzzing static deltas: superblocks, indexes, parts, their programs, and patches."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from composefs_ext.errors import (
    CorruptError,
    FormatError,
    MissingObjectError,
    TooLargeError,
    UnsupportedError,
)
from composefs_ext.packs import Packs
from composefs_ext.staging import Staging
from composefs_ostree.deltas import listing, output
from composefs_ostree.deltas.bspatch import bspatch
from composefs_ostree.deltas.payload import Members, Unpacking, split
from composefs_ostree.deltas.program import Program
from composefs_ostree.deltas.superblock import parse_superblock
from composefs_ostree.fetching.stage import SmallContents
from composefs_ostree.formats import gvariant, objects
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import ObjectType
from support.fuzzing import Subject
from support.ostree_delta import LINK, REGULAR, SmallCommit, control, file_id, operation, part, part_file, payload

__all__ = ["COMMIT", "DELTAS", "OLD", "SUMMARY", "XATTRS"]

DELTA_ERRORS = (FormatError, CorruptError, UnsupportedError, MissingObjectError, TooLargeError)
"""What a delta may be refused with; all of them have one base and become one line."""

OLD = bytes(range(256)) * 3
SUMMARY = "(a(s(taya{sv}))a{sv})"
XATTRS = ((b"security.selinux", b"label\0"), (b"user.x", b""))

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
    digests = read(case[1:]) or {}
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
        for _, data, _, staged in Program(case_part, members, sources, "staged", SmallContents(500, packs)).run():
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


DELTAS = [
    Subject("superblock", superblock_seeds, read_superblock, (FormatError, CorruptError, UnsupportedError)),
    Subject("delta-index", index_seeds, read_index),
    Subject("delta-part", part_seeds, read_part, DELTA_ERRORS),
    Subject("delta-program", program_seeds, read_program, DELTA_ERRORS),
    Subject("bspatch", patch_seeds, read_patch, (CorruptError,)),
]
