"""All refs of a repository as people spell them: names of images, and names of streams with their encoding undone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from composefs.cli.output import say
from composefs.cli.text import one_line
from composefs.errors import ComposefsError, FormatError

if TYPE_CHECKING:
    from composefs.repository import Repository

__all__ = ["Ref", "is_image_ref", "left_out", "refs_with"]


class Ref(NamedTuple):
    """``kind`` is image or stream; ``target`` an image's id or a stream's name."""

    kind: str
    name: str
    target: str


def left_out(message: str) -> None:
    """Say that something among the refs is not listed, and why."""
    say(f"cfsctl: left out: {one_line(message)} (`cfsctl fsck` tells all that is wrong)")


def refs_with(prefix: str, repository: Repository, odd: Callable[[str], object] = left_out) -> list[Ref]:
    """Return the refs whose name begins so, of images and then of streams, each sorted by name.

    ``odd`` gets messages about what is none.
    """
    from composefs.repository.lookup import encoding_of
    from composefs.repository.names import decode, encode

    images = [Ref("image", name, image) for name, image in repository.images.list_refs(prefix, odd=odd)]
    streams = []
    for path, stream in repository.refs.list(encode(prefix, encoding_of(prefix)), odd=odd):
        try:
            name = decode(path, encoding_of(path))
        except FormatError as error:
            odd(f"streams/refs/{path}: {error.message}")
            continue
        streams.append(Ref("stream", name, stream))
    return [*sorted(images), *sorted(streams)]


def is_image_ref(repository: Repository, name: str) -> bool:
    """Tell whether an image has this name, of whatever bytes it is."""
    with suppress(ComposefsError):  # nothing can be told of it
        return any(found == name for found, _ in repository.images.list_refs(name, odd=lambda _odd: None))
    return False
