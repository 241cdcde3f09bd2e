"""Static deltas written by hand: right ones, and ones that are wrong in just one place."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from composefs_ostree.deltas.listing import delta_path
from composefs_ostree.deltas.superblock import Part
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.fileheader import checksum_header, make_head
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import ObjectType
from composefs_ostree.formats.objects import COMMIT_TYPE
from support.ostree_forge import swap

SUPERBLOCK = f"(a{{sv}}tayay{COMMIT_TYPE}aya(uayttay)a(yaytt))"
REGULAR = (0, 0, 0o100644)
LINK = (0, 0, 0o120777)


def number(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def operation(name: str, *operands: int) -> bytes:
    return name.encode() + b"".join(map(number, operands))


def control(added: int, literal: int, seek: int) -> bytes:
    """Three numbers of a patch."""
    return b"".join(struct.pack("<Q", n if n >= 0 else -n | 1 << 63) for n in (added, literal, seek))


def file_id(content: bytes, mode: tuple[int, int, int] = REGULAR, target: bytes = b"") -> bytes:
    return sha256(checksum_header(make_head(len(content), *mode, target, b"")) + content).digest()


def payload(blob: bytes, operations: bytes) -> bytes:
    """The payload of a part: the modes REGULAR and LINK, one empty set of attributes, a blob, operations."""
    rows = [tuple(swap(field, 4) for field in mode) for mode in (REGULAR, LINK)]
    return gvariant.encode("(a(uuu)aa(ayay)ayay)", (rows, [[]], blob, operations))


def part_file(data: bytes, compression: str = "x") -> bytes:
    return b"x" + lzma.compress(data, preset=0) if compression == "x" else b"\0" + data


class Announced(NamedTuple):
    """A part and what the superblock says of it."""

    file: bytes
    objects: list[tuple[int, bytes]]
    plain: int
    version: int = 0
    checksum: bytes | None = None
    size: int | None = None

    def row(self, order: str) -> tuple[int, bytes, int, int, bytes]:
        size, plain = len(self.file) if self.size is None else self.size, self.plain
        if order == "B":
            size, plain = swap(size, 8), swap(plain, 8)
        objects = b"".join(bytes([kind]) + object_id for kind, object_id in self.objects)
        return swap(self.version, 4) if order == "B" else self.version, self.digest, size, plain, objects

    @property
    def digest(self) -> bytes:
        return self.checksum or sha256(self.file).digest()


def part(file: bytes, objects: list[tuple[int, bytes]], plain: int) -> Part:
    """A part as a program sees it."""
    joined = b"".join(bytes([kind]) + object_id for kind, object_id in objects)
    return Part("deltas/x/0", sha256(file).digest(), len(file), plain, joined, None)


class SmallCommit:
    """A commit of one directory with a few files, and the bytes of everything."""

    def __init__(self, contents: dict[str, bytes], link: str | None = None) -> None:
        self.contents = contents
        self.link = link
        self.meta = gvariant.encode("(uuua(ayay))", (0, 0, swap(0o40755, 4), []))
        files = [(name, file_id(content)) for name, content in contents.items()]
        if link is not None:
            files.append(("link", file_id(b"", LINK, link.encode())))
        self.set_tree(files, [])

    def set_tree(self, files: list[tuple[str, bytes]], directories: list[tuple[str, bytes, bytes]]) -> None:
        """Have a root that names these files and directories, whether there are such objects or not."""
        self.tree = gvariant.encode("(a(say)a(sayay))", (sorted(files), sorted(directories)))
        ids = sha256(self.tree).digest(), sha256(self.meta).digest()
        self.value = ({}, b"", [], "small", "", swap(1, 8), *ids)
        self.commit = gvariant.encode(COMMIT_TYPE, self.value)
        self.id = sha256(self.commit).digest()

    def part(self, compression: str = "x") -> Announced:
        """One part that makes everything from nothing."""
        blob, operations, objects = b"", b"", []
        for kind, data in ((ObjectType.DIRTREE, self.tree), (ObjectType.DIRMETA, self.meta)):
            operations += operation("S", len(data), len(blob))
            objects.append((int(kind), sha256(data).digest()))
            blob += data
        for content in self.contents.values():
            operations += operation("S", 0, 0, len(content), len(blob))
            objects.append((int(ObjectType.FILE), file_id(content)))
            blob += content
        if self.link is not None:
            target = self.link.encode()
            operations += operation("S", 1, 0, len(target), len(blob))
            objects.append((int(ObjectType.FILE), file_id(b"", LINK, target)))
            blob += target
        return Announced(part_file(payload(blob, operations), compression), objects, len(blob))

    def superblock(
        self,
        parts: Sequence[Announced],
        *,
        origin: bytes = b"",
        fallbacks: Sequence[tuple[int, bytes, int, int]] = (),
        metadata: dict[str, Variant] | None = None,
        order: str | None = "l",
        inline: bool = False,
        to: bytes | None = None,
        before: bytes = b"",
    ) -> bytes:
        told = {} if order is None else {"ostree.endianness": Variant("y", ord(order))}
        path = delta_path(origin or None, to or self.id)
        if inline:
            for index, each in enumerate(parts):
                told[f"{path}/{index}"] = Variant("(yay)", (each.file[0], each.file[1:]))
        rows = [each.row(order or "l") for each in parts]
        beside = [(*each[:2], *(swap(size, 8) if order == "B" else size for size in each[2:])) for each in fallbacks]
        value = (told | (metadata or {}), swap(7, 8), origin, to or self.id, self.value, before, rows, beside)
        return gvariant.encode(SUPERBLOCK, value)

    def write(self, directory: Path, superblock: bytes, parts: Sequence[Announced] = ()) -> Path:
        """Write a delta into a directory of its own."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "superblock").write_bytes(superblock)
        for index, each in enumerate(parts):
            (directory / f"{index}").write_bytes(each.file)
        return directory
