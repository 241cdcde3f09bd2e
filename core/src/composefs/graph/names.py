"""The symlinks of a repository: streams, images, and the refs that name them."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from composefs.errors import CorruptError, NotFoundError, from_os_error
from composefs.graph.problem import Problem
from composefs.repository import Repository
from composefs.repository.links import open_refs, walk
from composefs.repository.names import TEMPORARY_PREFIX, encode_flat, parse_object_link, parse_ref_link

__all__ = ["Found", "Names", "read_names"]

_REFS = "refs"


class Found(NamedTuple):
    """What a name means: a stream, with its name, or an image, whose name is its id.

    ``ref`` is the path below ``streams/refs`` or ``images/refs``, if it was found by that.
    """

    kind: Literal["stream", "image"]
    name: str
    id: str
    ref: str | None


@dataclass(slots=True)
class Names:
    """All names, each with what it names.

    ``streams`` and ``images`` are {name: id}, where an image's name is its id; ``stream_refs`` is {path below
    ``streams/refs``, as it is encoded: stream}, ``image_refs`` {path below ``images/refs``: id}.  Whatever is not a
    symlink of the right shape, and refs to names that are not there, are ``problems`` and stand in none of these.
    """

    streams: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    stream_refs: dict[str, str] = field(default_factory=dict)
    image_refs: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def find(self, text: str) -> Found:
        """Find what a user means; raise NotFoundError.

        That is the name of a stream, else the id of an image, else a stream's ref, encoded or not, else an image's ref;
        refs with or without ``refs/``, or as the path in the repository by which fsck and du call them.
        """
        if text in self.streams:
            return Found("stream", text, self.streams[text], None)
        if text in self.images:
            return Found("image", text, text, None)
        path = _path_below(text, "streams/refs/")
        directory, slash, rest = path.partition("/")
        for spelling in (path, directory + slash + encode_flat(rest)):
            if spelling in self.stream_refs:
                name = self.stream_refs[spelling]
                return Found("stream", name, self.streams[name], spelling)
        path = _path_below(text, "images/refs/")
        if path in self.image_refs:
            return Found("image", self.image_refs[path], self.image_refs[path], path)
        raise NotFoundError(
            f"there is no stream, image or ref {text!r}", subject=text, hint="`cfsctl ref list` lists the refs"
        )


def _path_below(text: str, place: str) -> str:
    """Return the path of a ref below ``place``, from how it may be given: so, from ``refs/`` on, or from the top."""
    return text.removeprefix(place if text.startswith(place) else "refs/")


def read_names(repository: Repository) -> Names:
    """Read all names of a repository.  Raises only what keeps a directory from being read."""
    names = Names()
    try:
        names.streams = _read_entries(repository, "streams", names.problems)
        names.images = _read_entries(repository, "images", names.problems)
        for image, target in list(names.images.items()):
            if image != target:
                names.problems.append(Problem("broken-symlink", f"images/{image}", "it points to another object"))
                del names.images[image]
        names.stream_refs = _read_refs(repository, "streams", names.streams, names.problems)
        names.image_refs = _read_refs(repository, "images", names.images, names.problems)
    except OSError as error:
        raise from_os_error(error, f"listing the names in {repository.path}") from error
    return names


def _read_entries(repository: Repository, directory: str, problems: list[Problem]) -> dict[str, str]:
    """Read the symlinks in ``streams`` or ``images``: {name: id}."""
    found = {}
    fd = repository.store.find(directory)
    for name in sorted(os.listdir(fd)) if fd is not None else ():
        if name == _REFS or name.startswith(TEMPORARY_PREFIX):
            continue
        where = f"{directory}/{name}"
        try:
            link = os.readlink(name, dir_fd=fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                problems.append(Problem("entry-not-symlink", where, "it is not a symlink"))
                continue
            if error.errno == errno.ENOENT:
                continue  # removed meanwhile
            raise
        try:
            found[name] = parse_object_link(link, repository.algorithm, where)
        except CorruptError as error:
            problems.append(Problem("broken-symlink", where, error.message))
    return found


def _read_refs(
    repository: Repository, directory: str, targets: dict[str, str], problems: list[Problem]
) -> dict[str, str]:
    """Read the symlinks at any depth below ``streams/refs`` or ``images/refs``: {path: one of ``targets``}."""
    found: dict[str, str] = {}
    above = f"{directory}/{_REFS}"
    try:
        fd = open_refs([], repository.store.find(directory), above)
    except CorruptError:
        problems.append(Problem("unexpected-file-type", above, "it is not a directory"))
        return found
    if fd is None:
        return found

    def not_symlink(where: str) -> None:
        problems.append(Problem("entry-not-symlink", where, "it is not a symlink"))

    try:
        for parts, link in walk(fd, above, odd=not_symlink):
            path = "/".join(parts)
            where = f"{above}/{path}"
            try:
                target = parse_ref_link(link, len(parts) - 1, where)
            except CorruptError as error:
                problems.append(Problem("broken-symlink", where, error.message))
                continue
            if target in targets:
                found[path] = target
            else:
                problems.append(Problem("broken-symlink", where, f"there is no {directory}/{target}"))
    finally:
        os.close(fd)
    return found
