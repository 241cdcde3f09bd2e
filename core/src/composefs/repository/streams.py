"""Streams: splitstreams stored as objects, and their names in ``streams/``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from composefs import fsverity
from composefs.errors import CorruptError, NotFoundError
from composefs.linux.files import NewFile
from composefs.repository.links import read_entry
from composefs.repository.names import check_stream_name, is_no_entry
from composefs.repository.objects import Objects, Stored
from composefs.repository.sealing import OBJECT_MODE
from composefs.repository.store import Store
from composefs.splitstream import Parts, Reader, write

__all__ = ["Streams"]


class Streams:
    """The streams of a repository."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    def put(self, parts: Parts, *, known: Mapping[str, int] | None = None) -> Stored:
        """Store a splitstream, without a name.

        ``known`` are sizes in bytes of objects, by id, that the caller has found here since the repository was opened:
        they are not looked for again.  Raises MissingObjectError when the stream refers to what is not here.
        """
        self._store.require_writable("storing a stream")
        known = known or {}
        mentioned = [*parts.object_refs, *(object_id for _, object_id in parts.named_refs)]
        found = self._objects.require(mentioned, "storing a stream", known)
        sizes = [known[each] if each in known else found[each] for each in parts.object_refs]
        with self._store.doing("storing a stream"), NewFile(self._store.scratch, OBJECT_MODE) as new:
            with os.fdopen(new.fd, "w+b", closefd=False) as out:
                write(out, self._store.algorithm, parts, sizes)
            object_id = fsverity.digest_fd(new.fd, self._store.algorithm).hex()
            return self._objects.finish(new, object_id, os.fstat(new.fd).st_size, "copied")

    def lookup(self, name: str) -> str | None:
        """Return the id of the stream with a name, or None."""
        check_stream_name(name)
        return read_entry(name, self._store, "streams")

    def resolve(self, name: str) -> str:
        """Return the id of the stream with a name.  Raises NotFoundError."""
        object_id = self.lookup(name)
        if object_id is None:
            raise NotFoundError(
                f"there is no stream {name!r}", subject=name, hint="`cfsctl ref list` lists the refs and their streams"
            )
        return object_id

    def open(self, object_id: str, label: str | None = None) -> Reader:
        """Open a stream, its own digest checked; errors about it call it ``label``, or by its id."""
        fd = self._objects.open(object_id, verify=True)
        return Reader(fd, self._store.algorithm, label or f"stream {object_id}")

    def list(self, prefix: str = "", content_type: int | None = None) -> list[tuple[str, str]]:
        """Return (name, id) of the streams whose name begins with ``prefix``, sorted by name."""
        fd = self._store.find("streams")
        with self._store.doing("listing streams"):
            names = sorted(os.listdir(fd)) if fd is not None else []
        found = []
        for name in names:
            if is_no_entry(name) or not name.startswith(prefix):
                continue
            object_id = self.lookup(name)
            if object_id is None:
                continue  # removed meanwhile
            if content_type is not None:
                with Reader(self._objects.open(object_id), self._store.algorithm, f"stream {name}") as reader:
                    if reader.content_type != content_type:
                        continue
            found.append((name, object_id))
        return found

    def cat(self, reader: Reader, write: Callable[[bytes | memoryview], object]) -> int:
        """Pass the reassembled stream to ``write``, piece by piece, and return its size.

        Each object is checked as by :meth:`Objects.cat`.  Raises CorruptError and FormatError, then what was
        written is not to be used.
        """
        size = 0
        for number, data in reader.chunks():
            if number < 0:
                size += len(data)
                write(data)
            else:
                size += self._objects.cat(reader.object_ref(number), write)
        if size != reader.size:
            raise CorruptError(f"the stream has {size} bytes, its size says {reader.size}")
        return size
