"""What is meant by a name that a user types: a stream or an image.

    image    its ID, NAME of its ref, refs/NAME, images/refs/NAME
    stream   its own NAME, its ref DIR/NAME as `cfsctl ref list` shows it, refs/FILE, streams/refs/FILE

FILE is the path of the ref's file, in which the NAME of a flat ref is encoded; by that fsck, gc and du call refs.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from composefs.digest import parse_id
from composefs.errors import FormatError, NotFoundError
from composefs.repository.names import Encoding, ref_parts

if TYPE_CHECKING:
    from composefs.repository.facade import Repository

__all__ = ["Found", "Kind", "encoding_of", "find"]

Kind = Literal["stream", "image"]

FLAT_DIRECTORIES = frozenset({"oci", "ostree"})
"""Where the rest of a name below streams/refs is encoded in one file name, in repositories of composefs-rs 0.9.0."""


class Found(NamedTuple):
    """What a name means: a stream, with its name, or an image, whose name is its id.

    ``ref`` is the path below ``streams/refs`` or ``images/refs``, if it was found by that.
    """

    kind: Kind
    name: str
    id: str
    ref: str | None


def encoding_of(name: str) -> Encoding:
    """Return how the name of a stream's ref, DIR/NAME, is encoded, as far as its directory tells."""
    return "flat" if name.partition("/")[0] in FLAT_DIRECTORIES else "path"


def find(repository: Repository, text: str, kinds: tuple[Kind, ...] = ("stream", "image")) -> Found:
    """Find what is meant; where it may be several things, one of the first of ``kinds``.

    Raises NotFoundError, also where a ref leads nowhere, FormatError for what can be no name, and CorruptError for a
    symlink of another shape.
    """
    for kind in kinds:
        with suppress(FormatError):  # nothing of this kind can have the name
            found = _image(repository, text) if kind == "image" else _stream(repository, text)
            if found is not None:
                return found
    ref_parts(text, encoding_of(text))
    hint = "`cfsctl images` lists them" if kinds == ("image",) else "`cfsctl ref list` lists the refs"
    raise NotFoundError(f"there is no {' or '.join(kinds)} {text!r}", subject=text, hint=hint)


def _image(repository: Repository, text: str) -> Found | None:
    """Find an image; what looks like an id is one, even when a ref has that name."""
    try:
        image_id = parse_id(text, repository.algorithm)
    except FormatError:
        path = _path_below("images/refs/", text)
        target = repository.images.read_ref(path)
        if target is None:
            return None
        repository.images.require_named(target)
        return Found("image", target, target, path)
    return Found("image", image_id, image_id, None) if repository.images.is_named(image_id) else None


def _stream(repository: Repository, text: str) -> Found | None:
    """Find a stream; a ref of an extension may be flat in a directory of which only the extension knows."""
    if "/" not in text:
        stream_id = repository.streams.lookup(text)
        if stream_id is not None:
            return Found("stream", text, stream_id, None)
    path = _path_below("streams/refs/", text)
    first: Encoding = encoding_of(path) if path == text else "path"
    encodings: tuple[Encoding, Encoding] = (first, "path" if first == "flat" else "flat")
    for encoding in encodings:
        with suppress(FormatError):  # nothing can have this name in this encoding
            name = repository.refs.read(path, encoding)
            if name is not None:
                return Found("stream", name, repository.streams.resolve(name), "/".join(ref_parts(path, encoding)))
    return None


def _path_below(place: str, text: str) -> str:
    """Return the path of a ref below ``place``, from how it may be given: so, from ``refs/`` on, or from the top."""
    return text.removeprefix(place if text.startswith(place) else "refs/")
