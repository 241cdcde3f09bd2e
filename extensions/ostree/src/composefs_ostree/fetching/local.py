"""Content objects of a repository in a directory, and of the repositories in which it looks for what it lacks.

Each of them has a mode of its own.  An object comes from the first that has it, and is checked there: a damaged one is
an error, not a reason to look further.
"""

from __future__ import annotations

import os

from composefs_ext.errors import NotFoundError
from composefs_ext.files import open_regular
from composefs_ostree.fetching.content import FileFetch, unpack_small
from composefs_ostree.fetching.files import failure
from composefs_ostree.fetching.jobs import READ_SIZE, Jobs
from composefs_ostree.formats.names import ObjectType, object_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    from composefs_ostree.fetching.directories import LocalRepository
    from composefs_ostree.fetching.files import Failure
    from composefs_ostree.fetching.stage import Row, SmallContents

    class Reader(Protocol):
        """The file objects of one repository."""

        def path(self, file_id: bytes) -> str:
            """Return the path of an object."""

        def read(self, file_id: bytes, staged: str) -> Row | None:
            """Return an object's row, None if it is not there."""


__all__ = ["LocalFiles"]

_FIRST_READ = 16 << 10
"""Bytes: nine objects of ten are smaller, and are there with one read into little memory."""


class LocalFiles(Jobs):
    """The content objects of some repositories; read one after the other, for a disk does not answer faster to many."""

    def __init__(self, repositories: Sequence[LocalRepository], small: SmallContents) -> None:
        super().__init__()
        self._readers = [_reader(repository, small) for repository in repositories]

    def where(self, file_id: bytes) -> str:
        """Return the path of an object in the first repository."""
        return self._readers[0].path(file_id)

    def _do(self, file_id: bytes, staged: str) -> Row | Failure:
        for reader in self._readers:
            try:
                row = reader.read(file_id, staged)
            except Exception as error:  # noqa: BLE001  the coordinator reports whatever goes wrong here
                return failure(file_id, reader.path(file_id), error)
            if row is not None:
                return row
        return failure(file_id, self.where(file_id), NotFoundError("not found"))


def _reader(repository: LocalRepository, small: SmallContents) -> Reader:
    if repository.config.is_archive:
        return ArchiveReader(repository.directory, small)
    from composefs_ostree.fetching.bare import BareReader

    return BareReader(repository.directory, repository.config.mode, small)


class ArchiveReader:
    """The file objects of an archive repository."""

    def __init__(self, directory: str, small: SmallContents) -> None:
        self._directory = directory
        self._small = small

    def path(self, file_id: bytes) -> str:
        """Return the path of an object."""
        return f"{self._directory}/{object_path(ObjectType.FILE, file_id)}"

    def read(self, file_id: bytes, staged: str) -> Row | None:
        """Return an object's row, None if it is not there; raise CorruptError, FormatError or OSError."""
        try:
            fd = open_regular(self.path(file_id), follow=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            data = os.read(fd, _FIRST_READ)
            if len(data) < _FIRST_READ:
                row = unpack_small(file_id, data, staged, self._small)
                if row is not None:
                    return row
            return self._rest(file_id, staged, fd, data)
        finally:
            os.close(fd)

    def _rest(self, file_id: bytes, staged: str, fd: int, data: bytes) -> Row:
        """Return the row of an object that is large, or a symlink, or damaged, and begins with ``data``."""
        fetch = FileFetch(file_id, staged, self._small)
        fetch.begin()
        try:
            while data and fetch.take(data) is None:
                data = os.read(fd, READ_SIZE)
            return fetch.finish()
        except BaseException:
            fetch.discard()
            raise
