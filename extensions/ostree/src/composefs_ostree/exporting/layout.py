"""A new ostree repository: laid out in a directory, and taken away again while nothing has come into it.

The layout is libostree's: ostree.repo(5).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing

from composefs_ext.errors import ExistsError, NotFoundError
from composefs_ext.files import Naming
from composefs_ostree.exporting.directories import Directories
from composefs_ostree.exporting.unfinished import Unfinished

__all__ = ["TMP", "lay_out", "take_away"]

TMP = "tmp"
"""The directory in which files are made, by its path in the repository."""

_FILES = (".lock", "config")
_DIRECTORIES = (
    TMP,
    "tmp/cache",
    "extensions",
    "state",
    "refs",
    "refs/heads",
    "refs/mirrors",
    "refs/remotes",
    "objects",
)


def lay_out(path: str, mode: str, level: int | None) -> list[str]:
    """Lay out a repository in a directory unless it is one; ``level`` is written to an archive's config.

    Return the paths in it of what is new, "" for itself, in the order in which it was made, and nothing if objects may
    be there.  Raises ExistsError for a directory that holds anything else.
    """
    made = [each for each in ("", *_FILES, *_DIRECTORIES) if not os.path.lexists(f"{path}/{each}")]
    if _make_directory(path):
        return []
    config = f"[core]\nrepo_version=1\nmode={'archive-z2' if mode == 'archive' else mode}\n"
    if level is not None and mode == "archive":
        config += f"\n[archive]\nzlib-level={level}\n"
    with Naming(path), closing(Directories(path)) as directories:
        for name in sorted(_DIRECTORIES, key=made.__contains__):  # what is there first: nothing beside what is wrong
            directories.open(name, make=True)
        tmp = os.dup(directories.open(TMP))
        with Naming(f"{path}/config"), closing(Unfinished(f"{path}/{TMP}", tmp)) as staging:
            staging.write("config", config.encode())
            # With it the directory is a repository.
            os.rename("config", "config", src_dir_fd=staging.fd, dst_dir_fd=directories.top)
    return made if "objects" in made else []


def _make_directory(path: str) -> bool:
    """Make the repository's directory if it is not there; tell whether it is a repository already."""
    ours = {".lock", *(name.partition("/")[0] for name in _DIRECTORIES)}
    try:
        os.makedirs(path, 0o755, exist_ok=True)
        with os.scandir(path) as entries:
            found = {each.name: each.is_file(follow_symlinks=False) for each in entries}
        if "config" in found:
            return True
        # What an interrupted run has left is taken up.
        is_free = found.keys() <= ours and found.get(".lock", True)
    except (FileExistsError, NotADirectoryError):
        is_free = False
    except PermissionError:
        above = os.path.dirname(path)
        if os.path.isdir(above):
            raise
        from shlex import quote

        # Confined, it may make the directory, but not those above it.
        raise NotFoundError(
            f"{above} is not there", hint=f"make it first: mkdir -p {quote(above)}", subject=above
        ) from None
    if not is_free:
        raise ExistsError(
            f"{path} is neither an ostree repository nor empty", hint="give a new directory", subject=path
        )
    return False


def take_away(path: str, made: Sequence[str], directories: Directories) -> None:
    """Remove what :func:`lay_out` has ``made``; raise OSError for what is not empty any more, and leave that."""
    for each in reversed(made):
        above, _, name = each.rpartition("/")
        if name:
            (os.unlink if name in _FILES else os.rmdir)(name, dir_fd=directories.open(above))
        else:
            os.rmdir(path)
