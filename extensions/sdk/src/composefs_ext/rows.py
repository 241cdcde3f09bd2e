"""The shapes of rows on the wire, for type checkers.

Imported under ``TYPE_CHECKING`` only: at run time they are plain dictionaries, and typing costs start-up time.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "Conflict",
    "FileRow",
    "ImageName",
    "NamedStream",
    "Published",
    "RefRemoval",
    "RefRow",
    "RefUpdate",
    "Stored",
    "StoredRow",
    "StreamName",
    "Transforms",
]

Conflict = Literal["keep", "replace", "fail"]


class FileRow(TypedDict):
    """A staged file to take in, or with ``offset`` and ``size`` a range of it.  ``expect`` is the id it must have."""

    name: str
    offset: NotRequired[int]
    size: NotRequired[int]
    expect: NotRequired[str]


class Stored(TypedDict):
    """What the core made of a staged file, stream or image; ``stored`` tells how, for objects."""

    id: str
    size: int
    stored: NotRequired[Literal["moved", "reflinked", "copied", "present"]]


class Transforms(TypedDict, total=False):
    """What the core does to a dump's tree first, in this order; what is not named is not done.

    ``usr_to_root``: the root takes its metadata from /usr, and /run is emptied.  ``xattrs``: which attributes stay.
    ``bootable``: /boot and /sysroot are emptied, and SELinux labels set by the tree's own policy.
    """

    usr_to_root: bool
    xattrs: Literal["keep-all", "allowlist-only", "keep-user-xattrs"]
    bootable: bool


class StoredRow(TypedDict, total=False):
    """One row of object.put's answer: a Stored, or the error of this row alone."""

    id: str
    size: int
    stored: str
    error: dict[str, Any]


class StreamName(TypedDict):
    """A stream to name.  ``expect`` is the id that the name must have now, None for "no such name"."""

    name: str
    id: str
    if_exists: NotRequired[Conflict]
    expect: NotRequired[str | None]


class ImageName(TypedDict):
    """An image to list under images/, and the ref to give it."""

    id: str
    ref: NotRequired[str]


class RefUpdate(TypedDict):
    """A ref, DIR/NAME, to point to the stream named ``target``.

    ``expect`` is the name of the stream that it must point to now, None for "no such ref".
    """

    name: str
    target: str
    expect: NotRequired[str | None]


class RefRemoval(TypedDict):
    """A ref to remove.  ``expect`` is the name of the stream that it must point to now."""

    name: str
    expect: NotRequired[str]


class NamedStream(TypedDict):
    """A stream's name and id."""

    name: str
    id: str


class RefRow(TypedDict):
    """A ref, the name of the stream that it points to, and that stream's id."""

    name: str
    target: str
    id: str


class Published(TypedDict):
    """What was there before: each row has its name or id, and ``previous`` where there was something."""

    streams: list[dict[str, Any]]
    images: list[dict[str, Any]]
    refs: list[dict[str, Any]]
    remove_refs: list[dict[str, Any]]
