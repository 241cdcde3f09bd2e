"""Whether root may run a program: every directory on the way to it must be out of other people's reach.

The way includes the targets of symbolic links.  A component is trusted when it belongs to root, or to the owner of the
prefix that cfsctl itself is installed in, and neither group nor others may write it; a sticky directory, such as /tmp,
counts as not writable, because others cannot rename what is not theirs.
"""

from __future__ import annotations

import os
import stat
import sys

from composefs.paths import MAX_LINKS, LinksError, Trail, follow

__all__ = ["distrust"]


class _DistrustError(Exception):
    """Why a component is not trusted."""


def distrust(path: str) -> str | None:
    """Return why ``path``, absolute, must not be run by root, or None when nothing speaks against it.

    Raises ``OSError`` where a component cannot be looked at.
    """
    owners = {0, os.stat(sys.prefix).st_uid}

    def trusted(place: str) -> str:
        reason = _component(place, os.lstat(place), owners)
        if reason is not None:
            raise _DistrustError(reason)
        return place

    def child(way: Trail[str], name: bytes) -> str:
        return trusted(os.path.join(way[-1][1], os.fsdecode(name)))

    try:
        follow(trusted("/"), os.fsencode(path), child, _target)
    except _DistrustError as error:
        return str(error)
    except LinksError:
        return f"{path} goes through more than {MAX_LINKS} symbolic links"
    return None


def _target(place: str) -> bytes | None:
    return os.readlink(os.fsencode(place)) if os.path.islink(place) else None


def _component(path: str, info: os.stat_result, owners: set[int]) -> str | None:
    if info.st_uid not in owners:
        return f"{path} belongs to user {info.st_uid}, not to root"
    if stat.S_ISLNK(info.st_mode):
        return None
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        return f"{path} is writable by {'others' if info.st_mode & stat.S_IWOTH else 'its group'}"
    return None
