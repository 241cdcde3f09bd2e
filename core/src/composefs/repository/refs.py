"""Refs of streams: names, ``streams/refs/DIR/NAME``, that keep a stream from being collected."""

from __future__ import annotations

from composefs.repository.links import Odd, list_refs, read_ref, read_ref_link
from composefs.repository.names import Encoding, decode, encode, ref_parts
from composefs.repository.store import Store

__all__ = ["Refs"]


class Refs:
    """The refs of a repository's streams.  Names are ``DIR/NAME``, not encoded; targets are names of streams."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, name: str, encoding: Encoding) -> str | None:
        """Return the stream that a ref names, or None if there is no such ref; "path" takes a name that is encoded.

        Raises FormatError for a name not allowed and CorruptError for a symlink of another shape.
        """
        return read_ref(ref_parts(name, encoding), self._store, "streams")

    def has(self, name: str, encoding: Encoding) -> bool:
        """Tell whether there is a ref of that name, wherever it leads; otherwise as :meth:`read`."""
        return read_ref_link(ref_parts(name, encoding), self._store, "streams") is not None

    def list(self, prefix: str = "", encoding: Encoding = "path", *, odd: Odd) -> list[tuple[str, str]]:
        """Return (name, stream) of all refs whose name begins with ``prefix``; "path" gives them still encoded.

        A stream may be missing.  A name that the encoding cannot have made is odd too.
        """

        def read(path: str, target: str) -> tuple[str, str]:
            return decode(path, encoding), target

        return list_refs(self._store, "streams", encode(prefix, encoding), read, odd)
