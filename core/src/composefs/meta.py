"""meta.json, which makes a directory a repository and fixes its algorithm and EROFS formats.

    {"version": 1,
     "algorithm": "fsverity-sha512-12",
     "features": {"compatible": [], "read-only-compatible": ["v1_erofs"], "incompatible": []},
     "erofs_formats": {"default": 1, "extra": [2]}}

Features follow ext4's model: an unknown one is ignored, forbids writing, or forbids opening at all, by the list it is
in.  ``v1_erofs`` stands among the second kind exactly when the default format is 1.  ``extra`` is left out when empty;
without ``erofs_formats`` the format is 1 if ``v1_erofs`` is there, and 2 otherwise.  This is what composefs-rs 0.9.0
reads, and the bytes that it writes.
"""

from __future__ import annotations

import json
from typing import Any

from composefs.digest import Algorithm, algorithm_named
from composefs.errors import FormatError, UnsupportedError
from composefs.imageformats import EROFS_FORMATS
from composefs.tuples import NamedTuple

__all__ = ["MAX_META_SIZE", "Meta"]

VERSION = 1
MAX_META_SIZE = 1 << 20

_V1_EROFS = "v1_erofs"
_KNOWN_FEATURES = frozenset({_V1_EROFS})


class Meta(NamedTuple):
    """The content of meta.json.

    ``erofs_default`` is the format of new images, ``erofs_extra`` the formats that are to be made beside it.
    ``unknown_features`` are those that forbid this program to write.
    """

    algorithm: Algorithm
    erofs_default: int
    erofs_extra: tuple[int, ...] = ()
    unknown_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Meta:
        """Read meta.json.

        Raises FormatError for what is malformed or contradicts itself, and UnsupportedError for a later version or an
        unknown incompatible feature.  Unknown members are ignored.
        """
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"it is not JSON: {error}") from error
        version = _member(document, "version", int)
        if version > VERSION:
            raise UnsupportedError(
                f"meta.json has version {version}; this program knows {VERSION}", hint="use a newer composefs"
            )
        if version < 1:
            raise FormatError(f"it has version {version}")
        algorithm = algorithm_named(_member(document, "algorithm", str))
        lists = _member(document, "features", dict) if "features" in document else {}
        _names(lists, "compatible")  # which may be any
        read_only = _names(lists, "read-only-compatible")
        if unknown := sorted(_names(lists, "incompatible") - _KNOWN_FEATURES):
            raise UnsupportedError(
                f"the repository uses unknown features: {', '.join(unknown)}", hint="use a newer composefs"
            )
        default, extra = _formats(document, flagged=_V1_EROFS in read_only)
        return cls(algorithm, default, extra, tuple(sorted(read_only - _KNOWN_FEATURES)))

    def serialize(self) -> bytes:
        """Return the bytes of meta.json, as composefs-rs writes them for a new repository."""
        formats: dict[str, Any] = {"default": self.erofs_default}
        if self.erofs_extra:
            formats["extra"] = list(self.erofs_extra)
        document = {
            "version": VERSION,
            "algorithm": self.algorithm.meta_name,
            "features": {
                "compatible": [],
                "read-only-compatible": [_V1_EROFS] if self.erofs_default == 1 else [],
                "incompatible": [],
            },
            "erofs_formats": formats,
        }
        return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def _member(document: object, name: str, kind: type) -> Any:
    value = document.get(name) if isinstance(document, dict) else None
    # A JSON true is an int to Python.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FormatError(f"{name!r} is missing or no {kind.__name__}")
    return value


def _names(lists: dict[str, Any], name: str) -> set[str]:
    values = lists.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FormatError(f"features {name!r} is not a list of strings")
    return set(values)


def _formats(document: dict[str, Any], *, flagged: bool) -> tuple[int, tuple[int, ...]]:
    if "erofs_formats" not in document:
        return (1 if flagged else 2), ()
    formats = _member(document, "erofs_formats", dict)
    default = _member(formats, "default", int)
    extra = _member(formats, "extra", list) if "extra" in formats else []
    for number in (default, *extra):
        if type(number) is not int or number not in EROFS_FORMATS:  # True and 1.0 equal 1
            raise UnsupportedError(f"meta.json: unknown EROFS format {number!r}", hint="use a newer composefs")
    return default, tuple(extra)
