"""Names in an ostree repository: object ids, refs, and the files that hold them; how large these may be.

An *object id* is the SHA-256 of an object in its canonical form (not of its file, see
:mod:`composefs_ostree.formats.fileheader`): 32 raw bytes inside the formats and in this package, 64 lower-case
hexadecimal digits in file names, on the command line and in messages.  Source: libostree's ostree-core and ostree-repo
manuals.
"""

from __future__ import annotations

import re
from enum import IntEnum

from composefs_ext.errors import FormatError, UsageError

__all__ = [
    "ID_SIZE",
    "MAX_METADATA",
    "ObjectType",
    "check_ref",
    "is_commit_id",
    "is_ref",
    "object_path",
    "parse_checksum_line",
]

ID_SIZE = 32

MAX_METADATA = 128 << 20
"""Bytes of the largest metadata object, summary or other file that is held in memory (libostree's limit)."""

_HEX_ID = re.compile(r"[0-9a-f]{64}")
_REF = re.compile(r"(?:[A-Za-z0-9_][-._A-Za-z0-9]*/)*[A-Za-z0-9_][-._A-Za-z0-9]*")
_MAX_REF = 4096


class ObjectType(IntEnum):
    """The types of object that a pull meets, by their numbers in the formats."""

    FILE = 1
    DIRTREE = 2
    DIRMETA = 3
    COMMIT = 4

    @property
    def extension(self) -> str:
        """The ending of the object's file in an archive repository."""
        return _EXTENSIONS[self]


_EXTENSIONS = {
    ObjectType.FILE: "filez",
    ObjectType.DIRTREE: "dirtree",
    ObjectType.DIRMETA: "dirmeta",
    ObjectType.COMMIT: "commit",
}


def object_path(kind: ObjectType, object_id: bytes) -> str:
    """Return an object's path inside an archive repository."""
    name = object_id.hex()
    return f"objects/{name[:2]}/{name[2:]}.{_EXTENSIONS[kind]}"


def is_commit_id(text: str) -> bool:
    """Tell a commit id from a ref; ostree reads every string of 64 hexadecimal digits as an id."""
    return _HEX_ID.fullmatch(text) is not None


def is_ref(name: str) -> bool:
    """Tell whether a name follows ostree's grammar of refs, which has no ``..``."""
    return len(name) <= _MAX_REF and _REF.fullmatch(name) is not None


def check_ref(name: str) -> str:
    """Return a ref's name; raise UsageError unless it is one."""
    if not is_ref(name):
        raise UsageError(
            f"{name[:200]!r} is not an ostree ref",
            hint="refs are letters, digits, '.', '_', '-' in parts joined by '/'; no part starts with '.' or '-'",
        )
    return name


def parse_checksum_line(data: bytes, where: str) -> bytes:
    """Read the file of a ref: 64 hexadecimal digits and a newline; ``where`` names it in the FormatError."""
    text = data.decode("ascii", "replace").strip()
    if not _HEX_ID.fullmatch(text):
        raise FormatError(
            f"{where} does not hold a commit id but {text[:80]!r}",
            hint="check the URL: a server that answers every request with a page of its own does this",
            subject=where,
        )
    return bytes.fromhex(text)
