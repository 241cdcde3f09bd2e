"""All refs of a repository as people spell them: names of images, and names of streams with their encoding undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from composefs.cli.output import say
from composefs.cli.text import one_line
from composefs.errors import FormatError

if TYPE_CHECKING:
    from composefs.repository import Encoding, Repository

__all__ = ["Ref", "all_refs", "encoding_of", "is_image_ref", "left_out"]

FLAT_DIRECTORIES = frozenset({"oci", "ostree"})
"""Where the rest of a name below streams/refs is encoded in one file name, in repositories of composefs-rs 0.9.0."""


class Ref(NamedTuple):
    """``kind`` is image or stream; ``target`` an image's id or a stream's name."""

    kind: str
    name: str
    target: str


def encoding_of(name: str) -> Encoding:
    """Return how the name of a stream's ref, DIR/NAME, is encoded."""
    return "flat" if name.partition("/")[0] in FLAT_DIRECTORIES else "path"


def is_image_ref(repository: Repository, name: str) -> bool:
    """Tell whether an image has this name; what is wrong with others is passed over."""
    return any(name == image for image, _ in repository.images.list_refs(odd=lambda _odd: None))


def left_out(message: str) -> None:
    """Say that something among the refs is not listed, and why."""
    say(f"cfsctl: left out: {one_line(message)} (`cfsctl fsck` tells all that is wrong)")


def all_refs(repository: Repository, odd: Callable[[str], object] = left_out) -> list[Ref]:
    """Return the refs of images and then of streams, each sorted by name; ``odd`` gets messages about what is none."""
    from composefs.repository import decode_flat

    images = [Ref("image", name, image) for name, image in repository.images.list_refs(odd=odd)]
    streams = []
    for path, stream in repository.refs.list(odd=odd):
        directory, slash, rest = path.partition("/")
        try:
            name = directory + slash + decode_flat(rest) if encoding_of(path) == "flat" else path
        except FormatError as error:
            odd(f"streams/refs/{path}: {error.message}")
            continue
        streams.append(Ref("stream", name, stream))
    return [*sorted(images), *sorted(streams)]
