"""Packs: files that hold many small contents, of which each becomes an object.

A pack is another's file, who may write to it at any time.  So its bytes are read into memory first; what is hashed
there is what is written, and a file of our own takes the name in ``objects/``.  A new object of 2,500 bytes takes
five system calls: open, fchmod, write, link, close.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from composefs import fsverity
from composefs.errors import CancelledError, ComposefsError, CorruptError
from composefs.repository.objects import Objects, Stored
from composefs.systemerrors import from_os_error

if TYPE_CHECKING:
    from composefs.repository.facade import Repository

__all__ = ["Range", "store_ranges"]

_RUN = 1 << 20
"""Bytes that are read at once, and in memory."""


class Range(NamedTuple):
    """Bytes of a pack, at most _RUN of them; ``expect`` is the id that they must have."""

    offset: int
    size: int
    expect: str | None = None


def store_ranges(
    repository: Repository, fd: int, name: str, ranges: Sequence[Range]
) -> Iterator[Stored | ComposefsError]:
    """Store each range of an open file as an object, and yield in their order what came of it.

    ``name`` is the file's, for messages.  Once interrupted, nothing more is read: a list of ranges may have a terabyte,
    as two files of a few bytes can take turns in it.
    """
    objects, store = repository.objects, repository.store
    likely = False  # that an object is there already: as it was with the one before
    for run in _runs(ranges):
        if store.interrupted():
            yield from [CancelledError(f"interrupted while ranges of the staged file {name!r} were stored")] * len(run)
            continue
        start = run[0].offset
        try:
            data = memoryview(_read(fd, start, run[-1].offset + run[-1].size))
        except OSError as error:
            yield from [from_os_error(error, f"reading the staged file {name!r}")] * len(run)
            continue
        parts = [data[each.offset - start : each.offset - start + each.size] for each in run]
        ids = fsverity.digest_each(parts, store.algorithm)
        for wanted, part, object_id in zip(run, parts, ids, strict=True):
            stored = _store(objects, name, wanted, part, object_id.hex(), likely)
            likely = isinstance(stored, Stored) and stored.stored == "present"
            yield stored


def _runs(ranges: Sequence[Range]) -> Iterator[Sequence[Range]]:
    """Cut a list of ranges into those that can be read at once, as each begins where the last one ended."""
    first = 0
    for number in range(1, len(ranges)):
        last, this = ranges[number - 1], ranges[number]
        end = last.offset + last.size
        if this.offset != end or this.offset + this.size - ranges[first].offset > _RUN:
            yield ranges[first:number]
            first = number
    if ranges:
        yield ranges[first:]


def _read(fd: int, start: int, end: int) -> bytes:
    data = os.pread(fd, end - start, start)
    while len(data) < end - start and (more := os.pread(fd, end - start - len(data), start + len(data))):
        data += more
    return data


def _store(
    objects: Objects, name: str, wanted: Range, data: memoryview, object_id: str, likely: bool
) -> Stored | ComposefsError:
    offset, size, expect = wanted
    if len(data) != size:
        return CorruptError(f"the staged file {name!r} ends before byte {offset + size}", subject=name)
    if expect is not None and object_id != expect:
        return CorruptError(
            f"the {size} bytes at {offset} of the staged file {name!r} have the id {object_id}, not {expect}",
            subject=name,
        )
    try:
        return objects.store_hashed(data, object_id, likely=likely)
    except ComposefsError as error:
        return error
    except OSError as error:
        return from_os_error(error, f"storing {size} bytes at {offset} of the staged file {name!r}")
