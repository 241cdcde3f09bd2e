"""Names in an ostree repository: object ids, refs, and the files that hold them; how large these may be.

An *object id* is the SHA-256 of an object in its canonical form (not of its file, see
:mod:`composefs_ostree.formats.fileheader`): 32 raw bytes inside the formats and in this package, 64 lower-case
hexadecimal digits in file names, on the command line and in messages.  Source: libostree's ostree-core and ostree-repo
manuals.
"""

from __future__ import annotations

from composefs_ext.errors import FormatError, UsageError

__all__ = [
    "ID_SIZE",
    "MAX_DETACHED",
    "MAX_METADATA",
    "MAX_REF_FILE",
    "ObjectType",
    "check_collection",
    "check_ref",
    "is_collection",
    "is_commit_id",
    "is_ref",
    "object_path",
    "parse_checksum_line",
]

ID_SIZE = 32

MAX_METADATA = 128 << 20
"""Bytes of the largest metadata object, summary or other file that is held in memory (libostree's limit)."""

MAX_DETACHED = 16 << 20
"""Bytes of a commit's detached metadata, or of another file of signatures."""

MAX_REF_FILE = 4096
"""Bytes of the largest file of a ref that is read; it has 65."""

# No regular expressions here, nor in what else a pull takes that finds nothing new: re, with enum, takes 6 of the 35 ms
# in which an extension starts.
_HEX_DIGITS = "0123456789abcdef"
_REF_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._"
_MAX_REF = 4096
_MAX_COLLECTION = 255


class ObjectType(int):
    """The types of object, by their numbers in the formats."""

    FILE: ObjectType
    DIRTREE: ObjectType
    DIRMETA: ObjectType
    COMMIT: ObjectType
    TOMBSTONE: ObjectType
    COMMITMETA: ObjectType

    @property
    def extension(self) -> str:
        """The ending of the object's file in an archive repository."""
        return _EXTENSIONS[self]

    @property
    def word(self) -> str:
        """What messages call it."""
        return "file" if self == ObjectType.FILE else self.extension


ObjectType.FILE = ObjectType(1)
ObjectType.DIRTREE = ObjectType(2)
ObjectType.DIRMETA = ObjectType(3)
ObjectType.COMMIT = ObjectType(4)
ObjectType.TOMBSTONE = ObjectType(5)
ObjectType.COMMITMETA = ObjectType(6)

_EXTENSIONS = {
    ObjectType.FILE: "filez",
    ObjectType.DIRTREE: "dirtree",
    ObjectType.DIRMETA: "dirmeta",
    ObjectType.COMMIT: "commit",
    ObjectType.TOMBSTONE: "tombstone-commit",
    ObjectType.COMMITMETA: "commitmeta",
}


def object_path(kind: ObjectType, object_id: bytes) -> str:
    """Return an object's path inside an archive repository."""
    name = object_id.hex()
    return f"objects/{name[:2]}/{name[2:]}.{_EXTENSIONS[kind]}"


def is_commit_id(text: str) -> bool:
    """Tell a commit id from a ref; ostree reads every string of 64 hexadecimal digits as an id."""
    return len(text) == 2 * ID_SIZE and not text.strip(_HEX_DIGITS)


def is_ref(name: str) -> bool:
    """Tell whether a name follows ostree's grammar of refs, which has no ``..``."""
    return len(name) <= _MAX_REF and all(
        part and part[0] not in "-." and (not part.strip(_REF_CHARACTERS) or _are_word_characters(part))
        for part in name.split("/")
    )


def _are_word_characters(part: str) -> bool:
    """Tell whether all are letters or digits of a ref, of whatever script: what GLib takes for word characters."""
    from unicodedata import category

    return all(
        each in _REF_CHARACTERS or (each > "\x7f" and (category(each)[0] in "LN" or category(each) in ("Mn", "Pc")))
        for each in part
    )


def check_ref(name: str) -> str:
    """Return a ref's name; raise UsageError unless it is one, and would not be taken for a commit's id."""
    if is_commit_id(name):
        raise UsageError(f"{name!r} looks like a commit id", hint="give the ref another name")
    if len(name) > _MAX_REF:
        raise UsageError(f"the ref {name[:200]!r}… has {len(name)} characters; at most {_MAX_REF} are possible")
    if not is_ref(name):
        raise UsageError(
            f"{name[:200]!r} is not an ostree ref",
            hint="refs are letters, digits, '.', '_', '-' in parts joined by '/'; no part starts with '.' or '-'",
        )
    return name


def check_collection(text: str) -> str:
    """Return a collection id; raise UsageError unless it is one."""
    if not is_collection(text):
        raise UsageError(
            f"{text[:200]!r} is not a collection id", hint="write it like org.example.Stable, two parts at least"
        )
    return text


def is_collection(text: str) -> bool:
    """Tell whether it is a collection id, in the grammar of D-Bus' interface names."""
    parts = text.split(".")
    # What is ASCII and an identifier has letters, digits and "_", and does not begin with a digit.
    return len(text) <= _MAX_COLLECTION and len(parts) > 1 and text.isascii() and all(map(str.isidentifier, parts))


def parse_checksum_line(data: bytes, where: str) -> bytes:
    """Read the file of a ref: 64 hexadecimal digits and a newline; ``where`` names it in the FormatError."""
    text = data.decode("ascii", "replace").strip()
    if not is_commit_id(text):
        raise FormatError(
            f"{where} does not hold a commit id but {text[:80]!r}",
            hint="delete the ref there and set it again, or check the URL: a server may have one page for all",
            subject=where,
        )
    return bytes.fromhex(text)
