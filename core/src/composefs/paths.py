"""Paths in a tree: where they lead, through symlinks and ``..`` but never out of it, and how messages show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from composefs.errors import FormatError

__all__ = ["MAX_LINKS", "LinksError", "Trail", "follow", "joined", "shown"]

MAX_LINKS = 40
"""Symlinks on the way to a file, as in the kernel."""

File = TypeVar("File")

Trail = list[tuple[bytes, File]]
"""The way to a file without links and ``..``: names and files, from ``(b"", root)`` to the file's own."""


class LinksError(FormatError):
    """A path leads through too many symlinks, as those of a loop."""


def follow(
    root: File,
    path: bytes,
    child: Callable[[Trail[File], bytes], File | None],
    target: Callable[[File], bytes | None],
    *,
    last: bool = True,
) -> Trail[File] | None:
    """Return the way to which a path leads, or None where a name on it is missing.

    ``child`` returns the file that has a name in the directory at the end of a way, None if there is none; it raises if
    no directory is there, for ``..`` too.  ``target`` returns where a symlink points, and None for all that is not
    followed; what has the last name is only if ``last``.  Raises LinksError.
    """
    parts = _parts(path)
    trail: Trail[File] = [(b"", root)]
    links = 0
    while parts:
        part = parts.pop()
        if part == b"..":
            child(trail, part)  # raises behind a file, as in the kernel
            del trail[max(1, len(trail) - 1) :]
            continue
        file = child(trail, part)
        if file is None:
            return None
        link = target(file) if parts or last else None
        if link is None:
            trail.append((part, file))
            continue
        links += 1
        if links > MAX_LINKS:
            raise LinksError(f"{shown(path)} leads through more than {MAX_LINKS} symlinks")
        if link.startswith(b"/"):
            del trail[1:]
        parts += _parts(link)
    return trail


def joined(trail: Trail[File]) -> bytes:
    """Return the path of a way's end, absolute."""
    return b"/" + b"/".join([name for name, _ in trail[1:]])


def shown(path: bytes) -> str:
    """Return a path for a message: as it is, or escaped as in composefs-dump(5) if it cannot be shown in a line."""
    try:
        text = path.decode()
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and (text or not path):
        return text
    from composefs.dumpfile.escape import escape

    return b" ".join(map(escape, path.split(b" "))).decode("ascii")


def _parts(path: bytes) -> list[bytes]:
    """Return the names of a path, the last one first."""
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
