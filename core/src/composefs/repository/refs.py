"""Refs of streams: names, ``streams/refs/DIR/NAME``, that keep a stream from being collected."""

from __future__ import annotations

import os

from composefs.errors import CorruptError, FormatError, from_os_error
from composefs.repository.links import Odd, not_symlink, open_refs, read_ref, walk
from composefs.repository.names import Encoding, decode_flat, parse_ref_link, ref_parts
from composefs.repository.store import Store

__all__ = ["Refs"]


class Refs:
    """The refs of a repository's streams.  Names are ``DIR/NAME``, not encoded; targets are names of streams."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, name: str, encoding: Encoding) -> str | None:
        """Return the stream that a ref names, or None if there is no such ref.

        Raises FormatError for a name not allowed and CorruptError for a symlink of another shape.
        """
        return self._read(ref_parts(name, encoding))

    def read_path(self, path: str) -> str | None:
        """Return the stream that the ref at an encoded path below ``streams/refs`` names, or None."""
        return self._read(ref_parts(path, "path"))

    def _read(self, parts: list[str]) -> str | None:
        return read_ref(parts, self._store.find("streams"), "streams")

    def list(self, directory: str = "", encoding: Encoding = "path", *, odd: Odd = None) -> list[tuple[str, str]]:
        """Return (name, stream) of all refs below a directory, sorted by path; "" and "path" give all, still encoded.

        A stream may be missing.  Raises FormatError for a name that the encoding cannot have made, and CorruptError for
        what is no ref; with ``odd``, that gets the message instead, and the others are listed.
        """
        above = directory.split("/") if directory else []
        found = []
        try:
            fd = open_refs(above, self._store.find("streams"), "streams/refs")
            if fd is None:
                return []
            try:
                for parts, link in walk(fd, "/".join(["streams/refs", *above]), odd=not_symlink(odd)):
                    path = [*above, *parts]
                    rest = "/".join(parts)
                    try:
                        target = parse_ref_link(link, len(path) - 1, "/".join(["streams/refs", *path]))
                        name = "/".join([*above, decode_flat(rest) if encoding == "flat" else rest])
                    except (CorruptError, FormatError) as error:
                        if odd is None:
                            raise
                        odd(error.message)
                        continue
                    found.append((name, target))
            finally:
                os.close(fd)
        except OSError as error:
            raise from_os_error(error, f"listing streams/refs/{directory}") from error
        return found
