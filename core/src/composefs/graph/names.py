"""The symlinks of a repository: streams, images, and the refs that name them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from composefs.errors import CorruptError
from composefs.graph.problem import Problem
from composefs.linux.closing import Descriptor
from composefs.repository import Repository
from composefs.repository.links import open_refs, read_link, walk
from composefs.repository.names import is_no_entry, parse_object_link, parse_ref_link

__all__ = ["Names", "read_names"]


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


def read_names(repository: Repository) -> Names:
    """Read all names of a repository.  Raises only what keeps a directory from being read.

    Whoever publishes meanwhile names a stream or image before the refs to it, so the refs are read first: what one of
    them names is then among those that are read after it.
    """
    names = Names()
    with repository.store.doing("listing the names"):
        stream_refs = _read_links(repository, "streams", names.problems)
        image_refs = _read_links(repository, "images", names.problems)
        names.streams = _read_entries(repository, "streams", names.problems)
        names.images = _read_entries(repository, "images", names.problems)
    for image, target in list(names.images.items()):
        if image != target:
            names.problems.append(Problem("broken-symlink", f"images/{image}", "it points to another object"))
            del names.images[image]
    names.stream_refs = _resolve("streams", stream_refs, names.streams, names.problems)
    names.image_refs = _resolve("images", image_refs, names.images, names.problems)
    return names


def _read_entries(repository: Repository, directory: str, problems: list[Problem]) -> dict[str, str]:
    """Read the symlinks in ``streams`` or ``images``: {name: id}."""
    found = {}
    fd = repository.store.find(directory)
    for name in sorted(os.listdir(fd)) if fd is not None else ():
        if is_no_entry(name):
            continue
        where = f"{directory}/{name}"
        try:
            link = read_link(name, fd, where)
        except CorruptError:
            problems.append(Problem("entry-not-symlink", where, "it is not a symlink"))
            continue
        if link is None:
            continue  # removed meanwhile
        try:
            found[name] = parse_object_link(link, repository.algorithm, where)
        except CorruptError as error:
            problems.append(Problem("broken-symlink", where, error.message))
    return found


def _read_links(repository: Repository, directory: str, problems: list[Problem]) -> list[tuple[str, str]]:
    """Read the symlinks at any depth below ``streams/refs`` or ``images/refs``: (path, link)."""
    above = f"{directory}/refs"
    try:
        fd = open_refs([], repository.store.find(directory), above)
    except CorruptError:
        problems.append(Problem("unexpected-file-type", above, "it is not a directory"))
        return []
    if fd is None:
        return []

    def not_symlink(where: str, reason: str) -> None:
        problems.append(Problem("entry-not-symlink", where, f"it {reason}"))

    with Descriptor(fd):
        return list(walk(fd, above, odd=not_symlink))


def _resolve(
    directory: str, links: list[tuple[str, str]], targets: dict[str, str], problems: list[Problem]
) -> dict[str, str]:
    """Return {path: one of ``targets``} of the refs that were read, and add what is wrong with the others."""
    found: dict[str, str] = {}
    for path, link in links:
        where = f"{directory}/refs/{path}"
        try:
            target = parse_ref_link(link, path.count("/"), where)
        except CorruptError as error:
            problems.append(Problem("broken-symlink", where, error.message))
            continue
        if target in targets:
            found[path] = target
        else:
            problems.append(Problem("broken-symlink", where, f"there is no {directory}/{target}"))
    return found
