"""Whether root may run a program: every directory on the way to it must be out of other people's reach.

The way includes the targets of symbolic links.  A component is trusted when it belongs to root, or to the owner of the
prefix that cfsctl itself is installed in, and neither group nor others may write it; a sticky directory, such as /tmp,
counts as not writable, because others cannot rename what is not theirs.
"""

from __future__ import annotations

import os
import stat
import sys

__all__ = ["distrust"]

_MAX_LINKS = 40


def distrust(path: str) -> str | None:
    """Return why ``path``, absolute, must not be run by root, or None when nothing speaks against it.

    Raises ``OSError`` where a component cannot be looked at.
    """
    owners = {0, os.stat(sys.prefix).st_uid}
    done = "/"
    links = 0
    waiting = path.split("/")[::-1]
    reason = _component(done, os.lstat(done), owners)
    while waiting and reason is None:
        name = waiting.pop()
        if name in ("", "."):
            continue
        if name == "..":
            done = os.path.dirname(done)
            continue
        here = os.path.join(done, name)
        info = os.lstat(here)
        reason = _component(here, info, owners)
        if not stat.S_ISLNK(info.st_mode):
            done = here
            continue
        links += 1
        if links > _MAX_LINKS:
            return f"{path} goes through more than {_MAX_LINKS} symbolic links"
        target = os.readlink(here)
        if target.startswith("/"):
            done = "/"
        waiting += target.split("/")[::-1]
    return reason


def _component(path: str, info: os.stat_result, owners: set[int]) -> str | None:
    if info.st_uid not in owners:
        return f"{path} belongs to user {info.st_uid}, not to root"
    if stat.S_ISLNK(info.st_mode):
        return None
    sticky = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
        return f"{path} is writable by {'others' if info.st_mode & stat.S_IWOTH else 'its group'}"
    return None
