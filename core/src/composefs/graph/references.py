"""What streams and images refer to, and everything that some of them keep.

A stream refers to objects and, by names, to other streams and to images: those whose name begins with
``composefs.image``.  What a name refers to need not have a name in ``streams/`` or ``images/`` itself, and need not be
a splitstream: anything else is an object like others.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from composefs.erofs.reader import Image, walk_objects
from composefs.errors import ComposefsError, FormatError, MissingObjectError, ShortageError
from composefs.graph.names import Names
from composefs.graph.problem import Kind, Problem
from composefs.linux.closing import Descriptor
from composefs.repository import Repository
from composefs.splitstream import MAGIC, Reader, names_image

__all__ = ["Graph", "Start", "names_in", "refs_of", "starts_of", "unreadable"]

_ARROW = " → "
_STEPS = 2


class Start(NamedTuple):
    """Something to begin with: an id, what it is, and how to call it ("streams/NAME")."""

    id: str
    kind: Literal["stream", "image", "other"]
    where: str


def refs_of(names: Names) -> list[Start]:
    """Return what all refs name, those of streams first."""
    streams = [Start(names.streams[name], "stream", f"streams/refs/{path}") for path, name in names.stream_refs.items()]
    return streams + [Start(image, "image", f"images/refs/{path}") for path, image in names.image_refs.items()]


class Graph:
    """Reads what streams and images of a repository refer to; the digest of each is checked before it is believed.

    ``streams`` and ``images`` are the ids of those that have been read.  ``strict`` is as in
    :func:`composefs.erofs.reader.walk_objects`.
    """

    def __init__(self, repository: Repository, *, strict: bool = False) -> None:
        self._repository = repository
        self._strict = strict
        self.streams: set[str] = set()
        self.images: set[str] = set()

    def open_stream(self, object_id: str) -> Reader | None:
        """Open a stream, to be closed by whoever asked, or return None if the object is no splitstream.

        Raises MissingObjectError, CorruptError and FormatError.
        """
        fd = self._repository.objects.open(object_id, verify=True)
        try:
            begin = os.pread(fd, len(MAGIC), 0)
        except OSError as error:
            os.close(fd)
            raise self._repository.store.failed(error, f"reading object {object_id}") from error
        if begin != MAGIC:
            os.close(fd)
            return None
        reader = Reader(fd, self._repository.algorithm)
        self.streams.add(object_id)
        return reader

    def image(self, object_id: str) -> Iterator[tuple[bytes, int]]:
        """Yield the raw ids of an image's objects, with its files' sizes.

        Raises MissingObjectError, CorruptError and FormatError.
        """
        with Descriptor(self._repository.objects.open(object_id, verify=True)) as fd, Image.open(fd) as image:
            yield from walk_objects(image, self._repository.algorithm, strict=self._strict)
        self.images.add(object_id)

    def reach(self, starts: Iterable[Start], problems: list[Problem] | None = None) -> Iterator[bytes]:
        """Yield the raw ids of all that ``starts`` keep, themselves included, whether or not it is there.

        An id may come many times, as there may be more references than objects.  What cannot be read is added to
        ``problems``, and what it refers to is left out; if ``problems`` is None, its error is raised, and names it.
        """
        followed: set[tuple[str, bool]] = set()
        pending = list(starts)
        while pending:
            start = pending.pop()
            is_image = start.kind == "image"
            if (start.id, is_image) in followed:
                continue
            followed.add((start.id, is_image))
            yield bytes.fromhex(start.id)
            try:
                if is_image:
                    for digest, _ in self.image(start.id):
                        yield digest
                    continue
                reader = self.open_stream(start.id)
                if reader is None:
                    if start.kind == "stream":
                        raise FormatError("it is not a splitstream")
                    continue
                with reader:
                    named = names_in(reader)
                    yield from map(bytes.fromhex, reader.object_refs())
            except ComposefsError as error:
                if problems is None:
                    error.message = f"{start.where} in {self._repository.path}: {error.message}"
                    raise
                problems.append(unreadable(start, error))
                continue
            pending += starts_of(named, start.where)


def names_in(reader: Reader) -> list[tuple[str, str]]:
    """Read what a stream refers to by names, (name, id), the images first.  Raises FormatError."""
    return sorted(reader.named_refs, key=lambda ref: not names_image(ref[0]))


def starts_of(named: list[tuple[str, str]], where: str) -> list[Start]:
    """Return what a stream refers to by names as what to go on with; ``where`` is how to call the stream.

    Of a long way, as through a history of commits, only the ends are kept: all ways together would take memory with the
    square of their length.
    """
    if where.count(_ARROW) > _STEPS:
        top, _, rest = where.partition(_ARROW)
        where = _ARROW.join((top, "…", rest.rpartition(_ARROW)[2]))
    return [Start(each, "image" if names_image(name) else "other", where + _ARROW + name) for name, each in named]


def unreadable(start: Start, error: ComposefsError) -> Problem:
    """Describe why something could not be read; a FormatError comes from an object that has its digest.

    A ShortageError is raised again, as it says nothing of what was to be read.
    """
    if isinstance(error, ShortageError):
        raise error
    kind: Kind
    if start.kind == "image":
        kind = "image-invalid" if isinstance(error, FormatError) else "image-open-failed"
    elif isinstance(error, FormatError):
        kind = "stream-read-failed"
    elif start.kind == "other" and isinstance(error, MissingObjectError):
        kind = "missing-named-ref"
    else:
        kind = "stream-open-failed"
    return Problem(kind, start.where, error.message, start.id)
