"""The stream or image that a user names, and what may be meant where there is none of that name.

What an extension has pulled has its name as a stream's ref; the stream names the image.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from composefs.cli.refs import is_image_ref, refs_with
from composefs.errors import ComposefsError, NotFoundError, UsageError
from composefs.repository.lookup import find

if TYPE_CHECKING:
    from composefs.repository import Repository
    from composefs.repository.lookup import Found, Kind

__all__ = ["hinting", "named", "named_image", "telling"]

_CONFIG = "config:"
"""How a container image's manifest names its config, which names the images.  No other stream is followed: a commit of
which the files are not here names its parent, whose image is another."""

_TOLD = 3
_ABBREVIATED = 4
"""So many digits are taken for the beginning of an id, and fewer for a name."""


def named(repository: Repository, name: str, kinds: tuple[Kind, ...]) -> Found:
    """Find what a user means, as :func:`composefs.repository.lookup.find` does; its error tells what may be meant."""
    with telling(repository, *kinds):
        return find(repository, name, kinds)


@contextmanager
def telling(repository: Repository, *kinds: Kind) -> Iterator[None]:
    """Give a NotFoundError from the block a hint that tells what may have been meant."""
    try:
        yield
    except NotFoundError as error:
        with suppress(ComposefsError):  # whatever is wrong elsewhere, it is not what the user asked for
            error.hint = _meant(repository, error.subject or "", kinds) or error.hint
        raise


@contextmanager
def hinting(kind: type[ComposefsError], hint: str) -> Iterator[None]:
    """Give errors of a kind from the block this hint, which only the caller knows."""
    try:
        yield
    except kind as error:
        error.hint = hint
        raise


def named_image(repository: Repository, name: str) -> str:
    """Return the id of the image that a user means: by its id or a ref, or by a stream that names no other image.

    An image that has the name goes before a stream.  Raises NotFoundError, and UsageError for a stream of several.
    """
    found = named(repository, name, ("image", "stream"))
    return found.id if found.kind == "image" else _image_of(repository, found.id, name)


def _image_of(repository: Repository, stream_id: str, name: str) -> str:
    """Return the one image that a stream names; what is not published as an image is none, and is never mounted."""
    images = _images_named(repository, stream_id)
    if not images:
        raise NotFoundError(
            f"the stream {name!r} names no image",
            subject=name,
            hint=f"`cfsctl cat {shlex.quote(name)}` writes what it was made of",
        )
    published = {image: key for key, image in images if repository.images.is_named(image)}
    if not published:
        raise NotFoundError(
            f"the image that the stream {name!r} names is not published",
            subject=name,
            hint="do again what made it: a pull publishes what it has made",
        )
    if len(published) > 1:
        raise UsageError(
            f"the stream {name!r} names {len(published)} images",
            subject=name,
            hint=f"give the id of one, {_some([f'{image} ({key})' for image, key in published.items()])}",
        )
    return next(iter(published))


def _images_named(repository: Repository, stream_id: str) -> list[tuple[str, str]]:
    """Return (name, id) of the images that a stream names, or its config."""
    from composefs.splitstream import names_image

    with repository.streams.open(stream_id) as reader:
        named = reader.named_refs
    config = next((target for name, target in named if name.startswith(_CONFIG)), None)
    if config is not None:
        with repository.streams.open(config) as reader:
            named = reader.named_refs
    return [(name, target) for name, target in named if names_image(name)]


def _meant(repository: Repository, name: str, kinds: tuple[Kind, ...]) -> str | None:
    """Return what to give instead: the whole id that begins so, or the ref that an extension's commands call so."""
    if "image" not in kinds:
        if is_image_ref(repository, name.removeprefix("refs/")):
            return "an image has that name: give a file of it too, or see it with ls and mount"
    elif len(name) >= _ABBREVIATED and not name.strip("0123456789abcdef"):
        from composefs.graph import read_names

        begun = [image for image in read_names(repository).images if image.startswith(name)]
        if begun:
            return f"give the whole id, {_some(begun)}"
    refs = [ref for ref in refs_with("", repository, odd=lambda _odd: None) if ref.kind in kinds]
    called = [ref.name for ref in refs if ref.name.partition("/")[2] == name]
    return f"its name is {_some(called)}" if called else None


def _some(meant: list[str]) -> str:
    more = f", or one of {len(meant) - _TOLD} more" if len(meant) > _TOLD else ""
    return f"{' or '.join(meant[:_TOLD])}{more}"
