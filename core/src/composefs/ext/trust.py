"""Whether root may run a program, or a user believe a cache: all on the way must be out of other people's reach.

The way includes the targets of symbolic links.  A component is trusted when it belongs to root, or to the owner of the
prefix that cfsctl itself is installed in, and neither group nor others may write it; a sticky directory, such as /tmp,
counts as not writable, because others cannot rename what is not theirs.  Other users than root trust themselves too,
whomever they let into their group, and their home with all that is above it: who could change that has them anyway.
"""

from __future__ import annotations

import os
import stat
import sys

from composefs.paths import MAX_LINKS, LinksError, Trail, follow

__all__ = ["distrust"]


class _DistrustError(Exception):
    """Why a component is not trusted."""


def distrust(path: str, user: int = 0, home: str = "/") -> str | None:
    """Return why ``path``, absolute, must not be used by a user, or None when nothing speaks against it.

    ``home`` is the home of users other than root.  Raises ``OSError`` where a component cannot be looked at.
    """
    owners = {0, user, os.stat(sys.prefix).st_uid}
    homes = () if user == 0 else (f"{home}/", f"{os.path.realpath(home)}/")

    def trusted(place: str) -> str:
        if any(each.startswith(f"{place.rstrip('/')}/") for each in homes):
            return place
        reason = _component(place, os.lstat(place), owners, user)
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


def _component(path: str, info: os.stat_result, owners: set[int], user: int) -> str | None:
    if info.st_uid not in owners:
        return f"{path} belongs to user {info.st_uid}, not to root"
    if stat.S_ISLNK(info.st_mode):
        return None
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    others = stat.S_IWOTH if info.st_uid == user != 0 else stat.S_IWGRP | stat.S_IWOTH
    if info.st_mode & others and not sticky:
        return f"{path} is writable by {'others' if info.st_mode & stat.S_IWOTH else 'its group'}"
    return None
