"""A repository in a directory, and the repositories in which it looks for what it lacks (``core.parent``)."""

from __future__ import annotations

import os
from typing import NamedTuple

from composefs_ext.errors import CorruptError, NotFoundError, PermissionDeniedError, UnsupportedError
from composefs_ostree.fetching.transport import bad_object, open_regular
from composefs_ostree.formats.config import MAX_CONFIG, Config, parse_config

__all__ = ["Place", "find_places"]

_MAX_PLACES = 16


class Place(NamedTuple):
    """One repository: its directory and its config."""

    directory: str
    config: Config


def find_places(directory: str) -> list[Place]:
    """Return the repository in a directory and its parents, nearest first.

    Raises NotFoundError if there is none, UnsupportedError or CorruptError if one cannot be read.
    """
    places: list[Place] = []
    seen = set()
    following: str | None = directory
    while following is not None:
        try:
            place = _open_place(following)
        except PermissionError as error:
            what = "the repository's parent cannot be read" if places else error.strerror
            raise PermissionDeniedError(
                f"{following}/config: {what}",
                hint=f"check the owner and mode; a confined extension needs cfsctl --ext-read {following}",
                subject=following,
            ) from None
        if not os.path.isabs(place.config.parent or "/"):
            raise UnsupportedError(
                f"{place.directory}/config: the parent {place.config.parent!r} is not an absolute path",
                hint="what it is relative to depends on who reads it; give the whole path",
                subject=place.directory,
            )
        status = os.stat(place.directory)
        if (status.st_dev, status.st_ino) in seen or len(places) == _MAX_PLACES:
            raise CorruptError(
                f"{place.directory}/config: the parents of this repository do not end", subject=place.directory
            )
        seen.add((status.st_dev, status.st_ino))
        places.append(place)
        following = place.config.parent
    return places


def _open_place(directory: str) -> Place:
    path = f"{directory}/config"
    try:
        fd = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        is_ours = os.path.exists(f"{directory}/meta.json")
        raise NotFoundError(
            f"{path}: not found, so this is not an ostree repository",
            hint="from a composefs repository: cfsctl copy --from PATH ostree/REF" if is_ours else "check the path",
            subject=path,
        ) from None
    except CorruptError as error:
        raise bad_object(path, error) from None
    with open(fd, "rb") as file:
        return Place(directory, parse_config(file.read(MAX_CONFIG), path))
