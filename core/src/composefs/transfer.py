"""Copying streams and images, with everything that they name, into another repository.

Objects are reflinked or copied, and the id of each copy is computed anew.  Nothing gets a name here: whoever copies
publishes what was copied, or leaves it to garbage collection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from composefs.errors import CorruptError, InputOutputError, UnsupportedError
from composefs.graph import Graph, Start, read_names
from composefs.linux.closing import Descriptor
from composefs.repository import Repository

__all__ = ["Copied", "CopiedStream", "copy"]


class CopiedStream(NamedTuple):
    """A stream: its name in the source, if it has one there, and its id."""

    name: str | None
    id: str


@dataclass(slots=True)
class Copied:
    """All streams and images (ids) that were copied or there already, and how many objects: ``size`` bytes are new."""

    streams: list[CopiedStream] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    objects: int = 0
    size: int = 0
    present: int = 0


def copy(
    source: Repository,
    target: Repository,
    starts: Iterable[Start],
    *,
    report: Callable[[int, int], object] = lambda _done, _total: None,
) -> Copied:
    """Copy what ``starts`` keep in the source into a target opened for writing.

    ``report`` is called with the number of objects done and that of all.  Raises UnsupportedError when the algorithms
    differ, and MissingObjectError, CorruptError and FormatError for a source that is not whole.
    """
    target.store.require_writable("copying")
    if source.algorithm != target.algorithm:
        raise UnsupportedError(
            f"{source.path} has {source.algorithm} ids and {target.path} {target.algorithm} ones",
            hint="streams hold ids: pull into a repository with the other algorithm instead",
        )
    names = read_names(source)
    graph = Graph(source, strict=True)
    reached = sorted(set(graph.reach(starts)))
    copied = Copied()
    for done, each in enumerate(reached):
        report(done, len(reached))
        _copy_object(source, target, each.hex(), copied)
    report(len(reached), len(reached))
    by_id: dict[str, list[str]] = {}
    for name, object_id in names.streams.items():
        by_id.setdefault(object_id, []).append(name)
    copied.streams = [
        CopiedStream(name, object_id) for object_id in sorted(graph.streams) for name in by_id.get(object_id, [None])
    ]
    copied.images = sorted(graph.images)
    return copied


def _copy_object(source: Repository, target: Repository, object_id: str, copied: Copied) -> None:
    with Descriptor(source.objects.open(object_id)) as fd:
        size = os.fstat(fd).st_size
        if target.objects.size(object_id) == size:
            copied.present += 1
            return
        try:
            stored = target.objects.store_fd(fd)
        except InputOutputError:
            source.objects.cat(object_id, len)  # says so if it cannot be read, and the target is not to blame
            raise
        if stored.id != object_id:
            raise CorruptError(
                f"object {object_id} of {source.path} is damaged: its content has the digest {stored.id}",
                subject=object_id,
                hint="see `cfsctl fsck` there",
            )
        copied.objects += 1
        copied.size += size
