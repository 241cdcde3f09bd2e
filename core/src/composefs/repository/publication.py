"""What is to be published, and what came of it: the records of :mod:`composefs.repository.publish`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Literal, NamedTuple

from composefs.repository.names import Encoding

__all__ = ["ANY", "Expectation", "ImageName", "Publication", "Published", "RefRemoval", "RefUpdate", "StreamName"]


class _Any(enum.Enum):
    ANY = "any"


ANY = _Any.ANY
"""No expectation; None expects that there is nothing."""

Expectation = str | None | _Any


class StreamName(NamedTuple):
    """Name a stored splitstream ``name``.

    When the name has another id: ``keep`` lets it stay (unless that object is gone), ``replace`` replaces it, ``fail``
    raises ExistsError.  ``expect`` is the id it must have now.
    """

    name: str
    id: str
    if_exists: Literal["keep", "replace", "fail"] = "fail"
    expect: Expectation = ANY


class ImageName(NamedTuple):
    """Make a stored image mountable, and name it ``images/refs/REF`` if a ref is given."""

    id: str
    ref: str | None = None


class RefUpdate(NamedTuple):
    """Let the ref ``name``, DIR/NAME not encoded, name the stream ``target``.  ``expect`` is its target now."""

    name: str
    target: str
    encoding: Encoding
    expect: Expectation = ANY


class RefRemoval(NamedTuple):
    """Remove the ref ``name``, DIR/NAME not encoded.  ``expect`` is its target now."""

    name: str
    encoding: Encoding
    expect: Expectation = ANY


class Publication(NamedTuple):
    """All that one call makes visible, or removes.  ``remove_image_refs`` are names below ``images/refs``."""

    streams: Sequence[StreamName] = ()
    images: Sequence[ImageName] = ()
    refs: Sequence[RefUpdate] = ()
    remove_refs: Sequence[RefRemoval] = ()
    remove_image_refs: Sequence[str] = ()


class Published(NamedTuple):
    """What is there now and was there before, in the order of the publication.

    ``streams`` are (name, id now, id before), ``images`` ids, ``refs`` and the removed ones (name, target before).
    """

    streams: list[tuple[str, str, str | None]]
    images: list[str]
    refs: list[tuple[str, str | None]]
    removed_refs: list[tuple[str, str]]
    removed_image_refs: list[tuple[str, str]]
