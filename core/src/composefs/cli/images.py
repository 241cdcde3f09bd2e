"""The image that a user names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from composefs.cli.refs import all_refs
from composefs.errors import ComposefsError, NotFoundError

if TYPE_CHECKING:
    from composefs.repository import Repository

__all__ = ["named_image"]

_TOLD = 3


def named_image(repository: Repository, name: str) -> str:
    """Return the id of the image that a user names by it, ``refs/NAME`` or NAME.

    Raises NotFoundError; if a stream has such a ref, that tells the ids of the stream's images, as what was pulled has
    its name there.
    """
    try:
        return repository.images.resolve(name)
    except NotFoundError as error:
        try:
            images = _images_of_stream(repository, name.removeprefix("refs/"))
        except ComposefsError:
            images = []  # whatever is wrong with the stream, it is not what the user asked for
        if images:
            more = f", or one of {len(images) - _TOLD} more" if len(images) > _TOLD else ""
            error.hint = f"a stream has that name: give the id of its image, {' or '.join(images[:_TOLD])}{more}"
        raise


def _images_of_stream(repository: Repository, name: str) -> list[str]:
    """Return the images of the stream that a ref names: called as its file is, as it is listed, or without DIR/."""
    from composefs.splitstream import names_image

    stream = repository.refs.read(name, "path")
    if stream is None:
        refs = [ref for ref in all_refs(repository, odd=lambda _odd: None) if ref.kind == "stream"]
        stream = next((ref.target for ref in refs if name in (ref.name, ref.name.partition("/")[2])), None)
    if stream is None:
        return []
    with repository.streams.open(name=stream) as reader:
        return sorted({target for key, target in reader.named_refs if names_image(key)})
