"""A repository in a directory, and the repositories in which it looks for what it lacks (``core.parent``)."""

from __future__ import annotations

import os
from typing import NamedTuple

from composefs_ext.errors import CorruptError, NotFoundError, PermissionDeniedError, UnsupportedError
from composefs_ostree.fetching.transport import bad_object, open_regular
from composefs_ostree.formats.config import MAX_CONFIG, Config, parse_config

__all__ = ["LocalRepository", "find_repositories"]

_MAX_REPOSITORIES = 16


class LocalRepository(NamedTuple):
    """One repository: its directory and its config."""

    directory: str
    config: Config


def find_repositories(directory: str) -> list[LocalRepository]:
    """Return the repository in a directory and its parents, nearest first.

    Raises NotFoundError if there is none, UnsupportedError or CorruptError if one cannot be read.
    """
    found: list[LocalRepository] = []
    seen = set()
    following: str | None = directory
    while following is not None:
        try:
            repository = _open(following)
        except PermissionError as error:
            what = "the repository's parent cannot be read" if found else error.strerror
            raise PermissionDeniedError(
                f"{following}/config: {what}",
                hint=f"check the owner and mode; a confined extension needs cfsctl --ext-read {following}",
                subject=following,
            ) from None
        if not os.path.isabs(repository.config.parent or "/"):
            raise UnsupportedError(
                f"{repository.directory}/config: the parent {repository.config.parent!r} is not an absolute path",
                hint="what it is relative to depends on who reads it; give the whole path",
                subject=repository.directory,
            )
        status = os.stat(repository.directory)
        if (status.st_dev, status.st_ino) in seen or len(found) == _MAX_REPOSITORIES:
            raise CorruptError(
                f"{repository.directory}/config: the parents of this repository do not end",
                subject=repository.directory,
            )
        seen.add((status.st_dev, status.st_ino))
        found.append(repository)
        following = repository.config.parent
    return found


def _open(directory: str) -> LocalRepository:
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
        return LocalRepository(directory, parse_config(file.read(MAX_CONFIG), path))
