"""What commands say of an image that they have computed or stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from composefs.cli.output import line, print_json
from composefs.digest import Algorithm

if TYPE_CHECKING:
    from composefs.repository.objects import Stored

__all__ = ["image_facts", "show_stored"]


def image_facts(image_id: str, algorithm: Algorithm, version: int | None) -> dict[str, Any]:
    """Return what JSON says of every image; ``version`` is its EROFS format, None for plain EROFS."""
    return {"id": image_id, "algorithm": algorithm.meta_name, "erofs_version": version}


def show_stored(image: Stored, algorithm: Algorithm, version: int | None, name: str | None, *, as_json: bool) -> None:
    """Print the id of an image that is published now, or as JSON what there is to know of it."""
    if as_json:
        print_json({**image_facts(image.id, algorithm, version), "size": image.size, "name": name})
    else:
        line(f"{algorithm}:{image.id}")
