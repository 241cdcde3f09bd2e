"""Which file system is full: the error says which object or URL did not fit, and not where to free some space."""

from __future__ import annotations

import os

from composefs.errors import NoSpaceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from composefs.cli.settings import Settings

__all__ = ["name_the_disk"]

_SCARCE = 0.2
_REMEDY = "free some space and run the command again"


def name_the_disk(error: NoSpaceError, settings: Settings) -> None:
    """Add the full file system to the error's hint: that of its subject, if that is a path, else of the repository."""
    place = error.subject or ""
    if not place.startswith("/"):
        if settings.no_repo:
            return
        place = settings.repository_path()
    mount = _mount_of(place)
    lack = ", which has hardly any inodes left" if _lacks_inodes(mount) else ""
    error.hint = f"the file system is the one at {mount}{lack}: {error.hint or _REMEDY}"


def _mount_of(path: str) -> str:
    """Return where the file system of a path is mounted; of the path only the beginning need be there."""
    path = os.path.realpath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _lacks_inodes(mount: str) -> bool:
    """Tell whether it is inodes that are scarce.  Some are free again by now, as the run has cleaned up."""
    status = os.statvfs(mount)
    if not status.f_files or not status.f_blocks:  # made as they are needed
        return False
    free = status.f_favail / status.f_files
    return free < min(_SCARCE, status.f_bavail / status.f_blocks)
