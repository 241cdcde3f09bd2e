"""The account that an extension runs under, if root does not want it to be root (``--ext-user``)."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Mapping

from composefs.errors import NotFoundError, PermissionDeniedError, UsageError
from composefs.linux.capabilities import SETGID, SETUID, effective_capabilities
from composefs.tuples import NamedTuple

__all__ = ["Account", "account_of"]

_MAX_PROCESSES = 4096


class Account(NamedTuple):
    """A user as in passwd(5), with all groups."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Return an extension's environment without what it says of root."""
        kept = {name: value for name, value in inherited.items() if not name.startswith("XDG_")}
        return kept | {"HOME": self.home, "USER": self.name, "LOGNAME": self.name}

    def reaches(self, directory: str) -> bool:
        """Tell whether the modes on the way let it through a directory, absolute; ACLs are not looked at."""
        while True:
            status = os.stat(directory)
            bits = 0o100 if status.st_uid == self.uid else 0o010 if status.st_gid in (self.gid, *self.groups) else 0o001
            if not status.st_mode & bits:
                return False
            if directory == "/":
                return True
            directory = os.path.dirname(directory)

    def give(self, directory: int) -> None:
        """Give it an open directory; raise PermissionDeniedError where root may not, as in a container.

        Or where root may not become it, for which :meth:`become` comes too late: what it raises is in another process.
        """
        try:
            if ~effective_capabilities() & (SETUID | SETGID):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            os.fchown(directory, self.uid, self.gid)
        except OSError as error:
            raise PermissionDeniedError(
                f"extensions cannot run as {self.name} here: {error.strerror}",
                hint="leave out --ext-user, or name a user that this container or user namespace has",
            ) from error

    def become(self) -> None:
        """Let this process be the account's, for good; the kernel takes all capabilities from it."""
        resource.setrlimit(resource.RLIMIT_NPROC, (_MAX_PROCESSES, _MAX_PROCESSES))
        try:
            os.setgroups(self.groups)
            os.setresgid(self.gid, self.gid, self.gid)
            os.setresuid(self.uid, self.uid, self.uid)
        except OSError as error:
            raise PermissionError(f"becoming {self.name}: {error.strerror}; leave out --ext-user") from None


def account_of(name: str) -> Account:
    """Look up a user by name or number; raise UsageError if we may not become it, NotFoundError if there is none."""
    import pwd

    if os.geteuid() != 0:
        raise UsageError("only root can run extensions as another user", hint="leave out --ext-user")
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except (KeyError, OverflowError, ValueError):  # the last is for thousands of digits
        hint = "make one: adduser --system NAME"
        raise NotFoundError(f"there is no user {name[:100]}", subject=name[:100], hint=hint) from None
    if entry.pw_uid == 0:
        raise UsageError(f"{name} is root", hint="leave out --ext-user, or name an unprivileged user")
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups), entry.pw_dir)
