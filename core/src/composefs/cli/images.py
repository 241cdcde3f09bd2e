"""The image that a user names."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from composefs.cli.refs import all_refs
from composefs.errors import ComposefsError, NotFoundError

if TYPE_CHECKING:
    from composefs.repository import Repository
    from composefs.splitstream import Reader

__all__ = ["named_image"]

_TOLD = 3
_ABBREVIATED = 4
"""So many digits are taken for the beginning of an id, and fewer for a name."""


def named_image(repository: Repository, name: str) -> str:
    """Return the id of the image that a user names by it, ``refs/NAME`` or NAME.

    Raises NotFoundError; if it is the beginning of an id, as ``cfsctl images`` shows it, or a stream has such a ref, as
    what was pulled has its name there, that tells the ids which may be meant.
    """
    try:
        return repository.images.resolve(name)
    except NotFoundError as error:
        with suppress(ComposefsError):  # whatever is wrong with a stream, it is not what the user asked for
            error.hint = _meant(repository, name) or error.hint
        raise


def _meant(repository: Repository, name: str) -> str | None:
    if len(name) >= _ABBREVIATED and not name.strip("0123456789abcdef"):
        from composefs.graph import read_names

        begun = [image for image in read_names(repository).images if image.startswith(name)]
        if begun:
            return f"give the whole id, {_some(begun)}"
    images = _images_of_stream(repository, name.removeprefix("refs/"))
    named = sorted(filter(repository.images.is_named, images))
    if named:
        return f"a stream has that name: give the id of its image, {_some(named)}"
    return "a stream has that name, and whatever made it has not published its image" if images else None


def _some(images: list[str]) -> str:
    more = f", or one of {len(images) - _TOLD} more" if len(images) > _TOLD else ""
    return f"{' or '.join(images[:_TOLD])}{more}"


def _images_of_stream(repository: Repository, name: str) -> set[str]:
    """Return the images of the stream that a ref names: called as its file is, as it is listed, or without DIR/.

    Where it names none, those of a stream that it names: so a container image's manifest names the config.
    """
    stream = repository.refs.read(name, "path")
    if stream is None:
        refs = [ref for ref in all_refs(repository, odd=lambda _odd: None) if ref.kind == "stream"]
        stream = next((ref.target for ref in refs if name in (ref.name, ref.name.partition("/")[2])), None)
    if stream is None:
        return set()
    with repository.streams.open(name=stream) as reader:
        images, streams = _named_by(reader)
    for each in streams:
        if images:
            break
        with repository.streams.open(id=each) as reader:
            images, _ = _named_by(reader)
    return images


def _named_by(reader: Reader) -> tuple[set[str], list[str]]:
    """Return the ids of the images and of the streams that a stream names."""
    from composefs.splitstream import names_image

    named = reader.named_refs
    return (
        {target for key, target in named if names_image(key)},
        [target for key, target in named if not names_image(key)],
    )
