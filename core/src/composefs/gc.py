"""Garbage collection: removing every object that no ref keeps, and the entries of such streams and images.

A repository keeps what ``streams/refs`` and ``images/refs`` name, and what follows from that (composefs.graph).  Unlike
composefs-rs 0.9.0, a stream that is kept is followed whether or not its object still has a name in ``streams/``, and an
image that a stream names keeps its objects.

It is all or nothing: when anything that is kept cannot be followed to its end, nothing is deleted, because what lies
behind it cannot be told from garbage.  Symlinks go before the objects that they point to, with a barrier in between:
after a power cut no name leads to what is gone.  The caller holds the exclusive lock, which keeps out those who have
stored objects and not yet named them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from composefs.errors import CorruptError
from composefs.graph import Graph, Names, Problem, Start, read_names, read_stock, refs_of
from composefs.linux.closing import Descriptor
from composefs.linux.files import open_directory
from composefs.repository import Repository
from composefs.repository.lookup import find
from composefs.repository.names import TEMPORARY_PREFIX

__all__ = ["Collected", "Tell", "collect"]

Tell = Callable[[str, str, int | None], object]
"""Gets each thing when it has gone, or would: its kind (stream, image, object), its name, and bytes if it has any."""

_MISPLACED = frozenset({"entry-not-symlink", "unexpected-file-type"})
_TOLD = 3
_LISTED = 1000


@dataclass(slots=True)
class Collected:
    """What was removed, or would be: numbers, and ``size`` in bytes.  ``odd`` are files in ``objects/``, left alone."""

    objects: int = 0
    size: int = 0
    images: int = 0
    streams: int = 0
    odd: list[str] = field(default_factory=list)


def collect(
    repository: Repository, roots: Iterable[str] = (), *, dry_run: bool = False, tell: Tell | None = None
) -> Collected:
    """Collect garbage in a repository that was opened ``exclusive``, and writable unless this is a dry run.

    ``roots`` are names, as :func:`composefs.repository.lookup.find` takes them, of what is kept besides what refs keep.
    Raises NotFoundError for a root that is not there, and CorruptError, which names what could not be followed.
    """
    if not dry_run:
        repository.store.require_writable("collecting garbage")
    names = read_names(repository)
    stock = read_stock(repository)
    problems = list(names.problems)
    # All that could be garbage, raw ids, less what is kept: there may be millions, and of what is kept is made no list.
    # A name whose object is missing stays for as long as something kept refers to that.
    garbage = set(stock)
    garbage.update(map(bytes.fromhex, chain(names.streams.values(), names.images.values())))
    garbage.difference_update(Graph(repository).reach(_starts(repository, names, roots), problems))
    if problems:
        raise _refusal(problems)
    collected = Collected(odd=[str(problem) for problem in stock.problems])
    try:
        collected.streams = _prune(repository, "stream", names.streams, garbage, dry_run, tell)
        collected.images = _prune(repository, "image", names.images, garbage, dry_run, tell)
        if not dry_run and not garbage.isdisjoint(stock):
            # Also for the names that were gone before: who removed them may have been killed before waiting for that.
            repository.objects.barrier()
        for prefix, ids in stock.ids.items():
            if dead := [each for each in ids if each in garbage]:
                _remove_objects(repository, prefix, dead, collected, dry_run, tell)
    except BrokenPipeError:  # who was told has gone
        raise
    except OSError as error:
        raise repository.store.failed(error, "collecting garbage") from error
    return collected


def _starts(repository: Repository, names: Names, roots: Iterable[str]) -> list[Start]:
    starts = refs_of(names)
    for root in roots:
        found = find(repository, root)
        starts.append(Start(found.id, found.kind, root))
    return starts


def _refusal(problems: list[Problem]) -> CorruptError:
    """Make the error: the first few in its line, many more as its causes, which `-v` shows a line each."""
    problems = sorted(problems, key=_is_misplaced)  # what the remedy is for comes first
    first = "; ".join(map(str, problems[:_TOLD]))
    more = f"; and {len(problems) - _TOLD} more, which -v lists" if len(problems) > _TOLD else ""
    if _is_misplaced(problems[0]):
        hint = "move what is there away, and what belongs there to its place"
    else:
        hint = "bring back what is missing with `cfsctl fsck --repair --from REPO`, or give it up with "
        hint += "`cfsctl ref remove [--image] NAME`"
    return CorruptError(
        f"nothing was deleted, because what is kept cannot be told: {first}{more}",
        subject=problems[0].object or problems[0].where,
        causes=tuple(map(str, problems[_TOLD:_LISTED])),
        hint=hint,
    )


def _is_misplaced(problem: Problem) -> bool:
    """Tell whether only people know what belongs there: it is no symlink, or a broken one that is no ref."""
    return problem.kind in _MISPLACED or (problem.kind == "broken-symlink" and "/refs/" not in problem.where)


def _prune(
    repository: Repository, kind: str, entries: Mapping[str, str], garbage: set[bytes], dry_run: bool, tell: Tell | None
) -> int:
    """Remove the symlinks whose objects are garbage, and unfinished ones of publishers that died; count the former."""
    dead = [name for name, target in entries.items() if bytes.fromhex(target) in garbage]
    fd = repository.store.find(f"{kind}s")
    if fd is None:
        return len(dead)
    for name in dead:
        if not dry_run:
            _unlink(repository, name, fd, f"{kind} {name}")
        if tell is not None:
            tell(kind, name, None)
    if dry_run:
        return len(dead)
    for _, _, files, at in os.fwalk(".", dir_fd=fd):
        for name in files:
            if name.startswith(TEMPORARY_PREFIX):
                os.unlink(name, dir_fd=at)
    return len(dead)


def _remove_objects(
    repository: Repository, prefix: str, dead: list[bytes], collected: Collected, dry_run: bool, tell: Tell | None
) -> None:
    with Descriptor(open_directory(prefix, repository.store.objects)) as fd:
        for each in dead:
            object_id = each.hex()
            rest = object_id[2:]
            status = os.stat(rest, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                collected.odd.append(f"objects/{prefix}/{rest}: it is a directory")
                continue
            if not dry_run:
                _unlink(repository, rest, fd, f"object {object_id}")
            collected.objects += 1
            collected.size += status.st_size
            if tell is not None:
                tell("object", object_id, status.st_size)


def _unlink(repository: Repository, name: str, fd: int, what: str) -> None:
    try:
        os.unlink(name, dir_fd=fd)
    except OSError as error:
        raise repository.store.failed(error, f"removing {what}") from error
