"""A static delta in files of its own, which plays the repository to pull from.

Its summary lists this delta alone, and it has no object but those that the delta brings.
"""

from __future__ import annotations

import os
from hashlib import sha256

from composefs_ext.errors import (
    ExtError,
    FormatError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
)
from composefs_ext.files import read_regular
from composefs_ostree.deltas.superblock import Delta, parse_superblock
from composefs_ostree.fetching.blame import DAMAGED_DELTA, blamed
from composefs_ostree.fetching.directories import DirectoryTransport
from composefs_ostree.fetching.transport import Fetch
from composefs_ostree.formats import gvariant
from composefs_ostree.formats.commit_stream import stream_name
from composefs_ostree.formats.gvariant import Variant
from composefs_ostree.formats.names import MAX_METADATA, ObjectType, object_path
from composefs_ostree.formats.summary import SUMMARY_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs_ext import Core
    from composefs_ostree.fetching.files import Files
    from composefs_ostree.fetching.stage import SmallContents

__all__ = ["DeltaSource"]

_SUPERBLOCK = "superblock"


class DeltaSource:
    """The repository that a delta in a file stands for, which has no refs: the one commit is known."""

    has_objects = False
    max_workers = None

    def __init__(self, path: str) -> None:
        """``path`` is a superblock, or the directory that one is in, the parts beside it.

        Raises NotFoundError, FormatError, CorruptError or UnsupportedError.
        """
        self._is_typed = not os.path.isdir(path)
        self.file = path if self._is_typed else os.path.join(path, _SUPERBLOCK)
        try:
            data = read_regular(self.file, MAX_METADATA)
            self.delta: Delta = parse_superblock(data)
        except FileNotFoundError:
            raise NotFoundError(f"{self.file}: not found", hint="give the file of a static delta") from None
        except FormatError as error:
            raise FormatError(
                f"{self.file} is no static delta, or a damaged one: {error.message}",
                hint="ostree static-delta generate --inline --filename=FILE writes one",
                subject=self.file,
            ) from None
        except ExtError as error:
            raise blamed(self.file, error, DAMAGED_DELTA) from None
        self._digest = sha256(data).digest()

    def open(self, core: Core) -> DeltaTransport:
        """Return what reads the delta's files; refuse a delta that lacks some of what it is to make."""
        if self.delta.fallbacks and not self._has_fallbacks(core):
            from composefs_ext.text import counted

            left = counted(len(self.delta.fallbacks), "large file")
            raise UnsupportedError(
                f"{self.file}: the delta leaves {left} to be fetched one by one",
                hint="pull from the repository, or have the delta made with --min-fallback-size=0",
            )
        return self.content_transport()

    def _has_fallbacks(self, core: Core) -> bool:
        from composefs_ostree.held.streams import open_commit

        for commit in (self.delta.to, self.delta.origin):
            if commit is None:
                continue
            try:
                held, _ = open_commit(core, stream_name(commit))
            except NotFoundError:
                continue
            if all(held.get(file_id) is not None for file_id in self.delta.fallbacks):
                return True
        return False

    def heading(self) -> bytes:
        """Return a summary that lists this delta."""
        names = [commit.hex() for commit in (self.delta.origin, self.delta.to) if commit is not None]
        listed = {"-".join(names): Variant("ay", self._digest)}
        return gvariant.encode(SUMMARY_TYPE, ([], {"ostree.static-deltas": Variant("a{sv}", listed)}))

    def content_transport(self) -> DeltaTransport:
        """Return what reads the delta's files."""
        return DeltaTransport(self.file, self.delta, is_typed=self._is_typed)

    def files(self, small: SmallContents) -> Files:
        """Return what would bring files that the delta does not, if there were any."""
        from composefs_ostree.fetching.files import FetchedFiles

        return FetchedFiles(self.content_transport(), small)


class DeltaTransport(DirectoryTransport):
    """The files of the repository that a delta stands for: superblock, parts, detached metadata."""

    def __init__(self, file: str, delta: Delta, *, is_typed: bool) -> None:
        """``file`` is the superblock; ``is_typed``: the user gave it, and not the directory that it is in."""
        super().__init__(os.path.dirname(file) or ".")
        self._file = file
        self._is_typed = is_typed
        self._prefix = f"{delta.path}/"
        self._detached_path = object_path(ObjectType.COMMITMETA, delta.to)
        self._detached = delta.detached
        self._inline = {part.path for part in delta.parts if part.inline is not None}

    def _read(self, fetch: Fetch) -> None:
        if fetch.path == self._detached_path and self._detached is not None:
            fetch.take(self._detached)
            return
        if not fetch.path.startswith(self._prefix):
            raise FileNotFoundError
        try:
            super()._read(fetch)
        except PermissionError:
            if not self._is_typed:
                raise
            from shlex import quote

            # Confinement lets an extension read what the user typed, and nothing beside it.
            directory = quote(os.path.dirname(self._file) or ".")
            raise PermissionDeniedError(
                "it cannot be read, as only its superblock was given",
                hint=f"give the directory of both: cfsctl ostree apply-delta {directory}",
            ) from None

    def where(self, path: str) -> str:
        """Return the path of the superblock or of a part; what else is wanted, the delta should have brought."""
        if path == f"{self._prefix}{_SUPERBLOCK}":
            return self._file
        if path in self._inline:
            return f"{self._file}: part {path.removeprefix(self._prefix)}"
        if path.startswith(self._prefix):
            return f"{os.path.dirname(self._file) or '.'}/{path.removeprefix(self._prefix)}"
        return f"{self._file}: {path}"
