"""The superblock of a static delta: what it is from and to, the new commit itself, and the list of parts and fallbacks.

``(a{sv}tayay(a{sv}aya(say)sstayay)aya(uayttay)a(yaytt))``: metadata, seconds since 1970 (big-endian), id of the old
commit (empty for a delta from scratch), id of the new one, the new commit, deltas that are needed before (always
none), parts, fallbacks.

A part is (version 0, SHA-256 of its file, size of the file, size of the objects it makes, those objects: a type byte
and an id each); a fallback is (type, id, compressed and plain size).  The numbers of both are in the byte order that
the metadata key ``ostree.endianness`` tells.  A part may be inline: the key that is its path holds its file, cut into
``(yay)``.  The key ``PATH/commitmeta`` holds the detached metadata of the new commit.

A signed superblock is ``(taya{sv})``: the magic ``OSTSGNDT``, a superblock, signatures.

Source: ostree-repo-static-delta-private.h of libostree.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from composefs_ext.errors import CorruptError, FormatError, UnsupportedError
from composefs_ostree.deltas.listing import delta_path
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.names import ID_SIZE, MAX_DETACHED, ObjectType
from composefs_ostree.formats.objects import COMMIT_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Delta", "Part", "Signed", "parse_superblock"]

MAX_OBJECTS = 4_000_000
"""Objects of all parts: as many as a commit's stream may refer to."""

_TYPE = f"(a{{sv}}tayay{COMMIT_TYPE}aya(uayttay)a(yaytt))"
_SIGNED_TYPE = "(taya{sv})"
_MAGIC = b"OSTSGNDT"
_ROW = 1 + ID_SIZE
_FILE = int(ObjectType.FILE)
_TYPES = frozenset({ObjectType.FILE, ObjectType.DIRTREE, ObjectType.DIRMETA, ObjectType.COMMIT})


class Part(NamedTuple):
    """A part as its superblock announces it.

    ``size`` is that of its file, ``plain`` that of the objects that it makes, in bytes; ``objects`` is 33 bytes for
    each of them, a type and an id: none in the delta between commits of the same tree; ``inline`` is its file, if the
    superblock has it.
    """

    path: str
    checksum: bytes
    size: int
    plain: int
    objects: bytes
    inline: bytes | None

    @property
    def object_count(self) -> int:
        """The number of objects."""
        return len(self.objects) // _ROW

    def object(self, number: int) -> tuple[int, bytes]:
        """Return type and id of an object."""
        start = number * _ROW
        return self.objects[start], self.objects[start + 1 : start + _ROW]

    def ids(self) -> tuple[list[bytes], list[bytes]]:
        """Return the ids of its files, and those of its metadata."""
        objects = self.objects
        files: list[bytes] = []
        metadata: list[bytes] = []
        for start in range(0, len(objects), _ROW):
            (files if objects[start] == _FILE else metadata).append(objects[start + 1 : start + _ROW])
        return files, metadata


class Signed(NamedTuple):
    """What a signed superblock's signatures are over, and the signatures, keyed as in detached metadata."""

    payload: bytes
    signatures: dict[str, gvariant.Variant]


class Delta(NamedTuple):
    """A superblock whose commit has the id ``to``.

    ``path`` is the delta's directory in a repository, ``origin`` the id of the old commit or None, ``commit`` the bytes
    of the new one, ``detached`` those of its detached metadata or None, ``fallbacks`` the plain sizes in bytes of file
    objects that the parts do not have, by id.
    """

    path: str
    origin: bytes | None
    to: bytes
    commit: bytes
    detached: bytes | None
    parts: tuple[Part, ...]
    fallbacks: dict[bytes, int]
    signed: Signed | None


def parse_superblock(data: bytes) -> Delta:
    """Read a superblock, signed or not; its commit is checked against its id.

    Raises FormatError if it is malformed, CorruptError if the commit is another one, UnsupportedError for what later
    versions of the format may bring.
    """
    signed = None
    if data.startswith(_MAGIC):
        _, data, signatures = gvariant.decode(_SIGNED_TYPE, data)
        signed = Signed(data, signatures)
    metadata, _time, origin, to, commit, before, parts, fallbacks = gvariant.decode(_TYPE, data)
    if len(to) != ID_SIZE or len(origin) not in (0, ID_SIZE):
        raise _malformed(f"its commits have ids of {len(origin)} and {len(to)} bytes")
    if before:
        raise UnsupportedError("the delta needs another delta to be applied first", hint="pull with --no-delta")
    raw_commit = gvariant.encode(COMMIT_TYPE, commit)
    if sha256(raw_commit).digest() != to:
        raise CorruptError(f"the commit in the delta is not {to.hex()}")
    path = delta_path(origin or None, to)
    order = _byte_order(metadata, parts, fallbacks)
    made = tuple(_part(row, f"{path}/{number}", order, metadata) for number, row in enumerate(parts))
    if sum(part.object_count for part in made) > MAX_OBJECTS:
        raise UnsupportedError(f"the delta has more than {MAX_OBJECTS} objects", hint="pull with --no-delta")
    return Delta(
        path,
        origin or None,
        to,
        raw_commit,
        _detached(metadata.get(f"{path}/commitmeta")),
        made,
        dict(_fallback(row, order) for row in fallbacks),
        signed,
    )


def _detached(found: gvariant.Variant | None) -> bytes | None:
    """Return the bytes of detached metadata, no more of them than are taken as a file of its own."""
    if found is None:
        return None
    if found.signature != "a{sv}":
        raise _malformed("the detached metadata is not a dictionary")
    data = gvariant.encode("a{sv}", found.value)
    if len(data) > MAX_DETACHED:
        raise _malformed(f"the detached metadata has {len(data)} bytes, more than {MAX_DETACHED}")
    return data


def _malformed(reason: str) -> FormatError:
    return FormatError(f"malformed superblock: {reason}")


def _byte_order(metadata: dict[str, gvariant.Variant], parts: list[Any], fallbacks: list[Any]) -> str:
    """Return the byte order of the numbers of parts and fallbacks."""
    told = metadata.get("ostree.endianness")
    if told is not None:
        if told.signature != "y" or told.value not in b"lB":
            raise _malformed("it does not tell its byte order")
        return "little" if told.value == ord("l") else "big"
    # Before 2016 nothing told; the smaller reading is the possible one.
    sizes = [size for *_, compressed, plain, _ in parts for size in (compressed, plain)]
    sizes += [size for *_, compressed, plain in fallbacks for size in (compressed, plain)]
    swapped = sum(int.from_bytes(size.to_bytes(8, "little"), "big") for size in sizes)
    return "little" if sum(sizes) <= swapped else "big"


def _part(row: tuple[Any, ...], path: str, order: str, metadata: dict[str, gvariant.Variant]) -> Part:
    version, checksum, size, plain, objects = row
    if version != 0:
        raise UnsupportedError(f"a part of the delta has another version than 0: {path}", hint="pull with --no-delta")
    if len(checksum) != ID_SIZE or len(objects) % _ROW or not _TYPES.issuperset(objects[::_ROW]):
        raise _malformed(f"the objects of part {path} are not listed")
    inline = metadata.get(path)
    data = None
    if inline is not None:
        if inline.signature != "(yay)":
            raise _malformed(f"part {path} is inline and has the type {inline.signature}")
        data = bytes([inline.value[0]]) + inline.value[1]
    return Part(path, checksum, _number(size, order), _number(plain, order), objects, data)


def _fallback(row: tuple[int, bytes, int, int], order: str) -> tuple[bytes, int]:
    kind, object_id, _, size = row
    if kind != ObjectType.FILE or len(object_id) != ID_SIZE:
        raise _malformed(f"a fallback has the type {kind} and an id of {len(object_id)} bytes")
    return object_id, _number(size, order)


def _number(value: int, order: str) -> int:
    """Read a number of the superblock in its byte order; raise FormatError if no file can have it as a size."""
    number = value if order == "little" else int.from_bytes(value.to_bytes(8, "little"), "big")
    if number >= 1 << 63:
        raise _malformed(f"a size of {number} bytes")
    return number
