"""Names of streams and refs: what is allowed, how they are encoded, and where symlinks may point.

A stream's name is one file name.  A ref's name is a path, ``DIR/NAME``; the directories ``ostree`` and ``oci`` keep
NAME flat, in one file name, with ``%`` as ``%25`` and ``/`` as ``%2F`` (composefs-rs 0.9.0, crates/composefs-oci
``encode_tag``), all others as directories below one another.

Symlinks in a repository have one shape each, and one of any other shape is never followed:

    streams/NAME, images/ID         ../objects/XX/REST
    streams/refs/A/B, images/refs/… ../../NAME, as many ".." as lead to streams/ or images/
"""

from __future__ import annotations

import re
from typing import Literal

from composefs.digest import Algorithm, parse_id
from composefs.errors import CorruptError, FormatError

__all__ = [
    "TEMPORARY_PREFIX",
    "Encoding",
    "check_stream_name",
    "decode",
    "decode_flat",
    "encode",
    "encode_flat",
    "is_no_entry",
    "object_link",
    "object_name",
    "parse_object_link",
    "parse_ref_link",
    "ref_link",
    "ref_parts",
]

Encoding = Literal["flat", "path"]

TEMPORARY_PREFIX = ".symlink-"
"""How the names of symlinks begin that are not published yet; composefs-rs uses and skips the same."""

_REFS = "refs"
_MAX_COMPONENT = 255
_MAX_NAME = 2048  # a ref's symlink climbs out of its directories, and must stay below PATH_MAX
_ESCAPE = re.compile("%(..?)?")
_UNESCAPED = {"25": "%", "2F": "/"}


def check_stream_name(name: str) -> None:
    """Raise FormatError unless ``name`` may name a stream."""
    _check_component(name, name)
    if "/" in name or name == _REFS:
        raise FormatError(f"{name[:300]!r} cannot be the name of a stream")


def is_no_entry(name: str) -> bool:
    """Tell whether what is in ``streams/`` or ``images/`` is no stream or image: ``refs``, or not published yet."""
    return name == _REFS or name.startswith(TEMPORARY_PREFIX)


def ref_parts(name: str, encoding: Encoding, errors: str = "strict") -> list[str]:
    """Return the path of a ref below ``refs/``, encoded, part by part; raise FormatError for a name not allowed.

    No part may be empty, ``.`` or ``..``.  A flat name is one part, whatever is between its slashes: ``docker://a/b``.
    A name that is not UTF-8 is for refs alone that somebody else has made: with the ``errors`` "surrogateescape".
    """
    parts = encode(name, encoding).split("/")
    if encoding == "flat" and len(parts) < 2:
        raise FormatError(f"the ref {name[:300]!r} has no directory; flat refs are DIR/NAME")
    for part in parts:
        _check_component(part, name, errors)
    if len(name.encode(errors=errors)) > _MAX_NAME:
        raise FormatError(f"the ref {name[:300]!r}… is longer than {_MAX_NAME} bytes")
    return parts


def _check_component(part: str, name: str, errors: str = "strict") -> None:
    try:
        length = len(part.encode(errors=errors))
    except UnicodeEncodeError as error:
        raise FormatError(f"the name {name[:300]!r} is not UTF-8") from error
    if part in ("", ".", "..") or "\0" in part or part.startswith(TEMPORARY_PREFIX):
        raise FormatError(
            f"the name {name[:300]!r} has the part {part[:300]!r}, which is not allowed",
            hint="write it as NAME or DIR/NAME, without a slash at the beginning or end, and without . and ..",
        )
    if length > _MAX_COMPONENT:
        raise FormatError(f"the name {name[:300]!r}… has a part of {length} bytes, encoded; at most 255 are possible")


def encode(name: str, encoding: Encoding) -> str:
    """Return the path of a ref below ``refs/``, encoded; the beginning of a name gives the beginning of the path."""
    directory, slash, rest = name.partition("/")
    return directory + slash + encode_flat(rest) if encoding == "flat" else name


def decode(path: str, encoding: Encoding) -> str:
    """Undo :func:`encode`; raise FormatError for what it cannot have made."""
    directory, slash, rest = path.partition("/")
    return directory + slash + decode_flat(rest) if encoding == "flat" else path


def encode_flat(name: str) -> str:
    """Turn a name with slashes into one file name."""
    return name.replace("%", "%25").replace("/", "%2F")


def decode_flat(text: str) -> str:
    """Undo :func:`encode_flat` in one pass; raise FormatError for what it cannot have made."""

    def unescape(match: re.Match[str]) -> str:
        if match[1] not in _UNESCAPED:
            raise FormatError(f"the encoded ref {text!r} has {match[0]!r}; only %25 and %2F are known")
        return _UNESCAPED[match[1]]

    return _ESCAPE.sub(unescape, text)


def object_name(object_id: str) -> str:
    """Return the path of an object below ``objects/``."""
    return f"{object_id[:2]}/{object_id[2:]}"


def object_link(object_id: str) -> str:
    """Return the target of a symlink in ``streams/`` or ``images/``."""
    return f"../objects/{object_id[:2]}/{object_id[2:]}"


def parse_object_link(target: str, algorithm: Algorithm, where: str) -> str:
    """Return the id in a symlink's target; raise CorruptError, naming ``where``, for another shape."""
    match target.split("/"):
        case ["..", "objects", prefix, rest] if len(prefix) == 2:
            try:
                return parse_id(prefix + rest, algorithm)
            except FormatError:
                pass
    raise CorruptError(f"the symlink {where} points to {target[:300]!r}, which is no object", subject=where)


def ref_link(depth: int, target: str) -> str:
    """Return the target of the symlink of a ref with ``depth`` directories below ``refs/``."""
    return "../" * (depth + 1) + target


def parse_ref_link(link: str, depth: int, where: str) -> str:
    """Undo :func:`ref_link`; raise CorruptError, naming ``where``, for another shape."""
    climb = "../" * (depth + 1)
    target = link.removeprefix(climb)
    if not link.startswith(climb) or "/" in target or target in ("", ".", "..", _REFS):
        raise CorruptError(f"the symlink {where} points to {link[:300]!r}, which is no ref's target", subject=where)
    return target
