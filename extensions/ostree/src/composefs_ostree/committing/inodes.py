"""What a tree to be committed is made of, wherever it comes from.

A source lists its directories, with what is known of each, and counts everything else: file *jobs*.  They have the
numbers behind those of the trees below it.  Worker processes then read one job after the other, as an :class:`Inode`.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from composefs_ext.errors import ExtError, FormatError, TooLargeError, UnsupportedError
from composefs_ostree.formats.objects import MAX_DEPTH, MAX_INODES, Dirmeta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

__all__ = ["Directory", "Inode", "Meta", "check_name", "clash_error", "shown", "special_file_error", "too_many_error"]


Meta = Dirmeta
"""Owner, full ``st_mode`` and extended attributes, here of files and symlinks too."""


class Directory:
    """A directory: its metadata (None: nothing told them), its files as job numbers and its directories, by name."""

    __slots__ = ("directories", "files", "meta")

    def __init__(self) -> None:
        self.meta: Meta | None = None
        self.files: dict[bytes, int] = {}
        self.directories: dict[bytes, Directory] = {}


class Inode(NamedTuple):
    """A regular file or symlink.

    ``target`` is a symlink's, b"" for files.  The content of a file has ``size`` bytes: ``inline`` has them, or else
    the open file ``fd``, all of it or in ``pieces``: (position, length), the position -1 for zeros.  ``owned`` tells
    that ``fd`` is to be closed, ``object_id`` that the content is this object of the repository.
    """

    meta: Meta
    size: int
    target: bytes = b""
    inline: bytes | None = None
    fd: int = -1
    pieces: tuple[tuple[int, int], ...] | None = None
    owned: bool = False
    object_id: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether ``fd`` has the content and nothing else, so that it may be reflinked."""
        return self.inline is None and self.pieces is None


if TYPE_CHECKING:

    class Listing(Protocol):
        """A tree as far as it is read before the workers start, each of which then reads jobs, numbered from 0."""

        jobs: int
        """How many files and symlinks there are."""

        def read(self, job: int) -> Inode:
            """Open a job."""

        def where(self, job: int) -> str:
            """Return the path to name in errors."""

        def close(self) -> None:
            """Close what is open but for what :meth:`read` has returned."""


def shown(path: bytes) -> str:
    """Return a path for messages."""
    return os.fsdecode(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_name(name: bytes, directory: bytes) -> None:
    """Raise FormatError for a name that no commit can hold: ostree takes UTF-8 only."""
    if name.isascii():
        return
    try:
        name.decode()
    except UnicodeDecodeError:
        raise FormatError.at(
            f"{shown(directory)}/{shown(name)}",
            "the name is not UTF-8, and ostree takes no other",
            hint="rename it, or leave it out",
        ) from None


def clash_error(path: str) -> FormatError:
    """Return the error for a directory in the place of something else, or the other way round."""
    return FormatError(
        f"{path} is both a file and a directory",
        hint="neither takes the other's place, not even in a later tree; leave one of them out",
        subject=path,
    )


def special_file_error(path: str) -> ExtError:
    """Return the error for what is neither file, symlink nor directory."""
    return UnsupportedError(
        f"{path} is a device, a pipe or a socket, which no ostree commit can hold",
        hint="leave it out, as --skip-list does: a system makes its devices when it starts",
        subject=path,
    )


def too_many_error() -> ExtError:
    """Return the error for a tree without end."""
    return TooLargeError(
        f"the tree has more than {MAX_INODES} files or {MAX_DEPTH} nested directories",
        hint="commit it in parts",
    )
