"""Staging: a directory for one run of an extension, on the repository's file system, which dies with the run.

``REPO/staging/RANDOM/work`` is where the extension writes, ``…/private`` where files go that are taken from it.  A run
holds a lock on its directory; what nobody holds was left by a run that was killed, and is swept when the repository is
opened for writing the next time.  Without a repository, or for reading one, the directory is in TMPDIR, under a name of
a form that nothing else there has; what killed runs have left there, the same user's next run sweeps.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Self

from composefs.errors import ComposefsError
from composefs.linux.closing import Closing, Descriptor
from composefs.linux.files import hold, open_directory, open_file, random_name, remove_tree, temporary_place
from composefs.linux.locks import try_lock
from composefs.systemerrors import Doing

if TYPE_CHECKING:
    from composefs.repository.store import Store

__all__ = ["Staging", "sweep"]


_IN_TMPDIR = "composefs-run-"


class Staging(Closing):
    """A staging directory; a context manager that removes it at the end.

    ``place`` is the path of the extension's directory and ``work_fd`` its descriptor; ``private`` is the descriptor of
    the core's own directory.
    """

    def __init__(self, parent: str, at: int, prefix: str = "") -> None:
        """Make a directory ``prefix…`` below ``parent``, which is open as ``at`` and closed with this."""
        self._at = at
        while True:
            self._name = prefix + random_name()
            # Passable for an extension under another uid, which is told the name; nobody can list or guess it.
            os.mkdir(self._name, 0o711, dir_fd=at)
            try:
                self._fd = open_directory(self._name, at)
            except FileNotFoundError:
                continue  # somebody swept before it could be marked as in use
            if hold(self._fd):
                break
            os.close(self._fd)
        os.fchmod(self._fd, 0o711)  # whatever the umask is
        os.mkdir("work", 0o700, dir_fd=self._fd)
        os.mkdir("private", 0o700, dir_fd=self._fd)
        self.place = f"{parent}/{self._name}/work"
        self.work_fd = open_directory("work", self._fd)
        self.private = open_directory("private", self._fd)

    @classmethod
    def create(cls, store: Store | None) -> Self:
        """Make a staging directory in the store of a repository opened for writing, or else in TMPDIR."""
        what = "making a staging directory"
        if store is not None and store.writable:
            with store.doing(what):
                return cls(f"{store.path}/staging", os.dup(store.scratch))
        parent = temporary_place()
        with Doing(f"{what} in {parent}"):
            at = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for name in os.listdir(at):
                if name.startswith(_IN_TMPDIR):
                    _sweep(name, at, owner=os.geteuid())
            return cls(parent, at, _IN_TMPDIR)

    def __exit__(self, *error: object) -> None:
        """Remove the directory; if that fails while an error is on its way, that one tells the cause."""
        try:
            self.close()
        except ComposefsError:
            if error[0] is None:
                raise

    def close(self) -> None:
        """Remove the directory and all in it."""
        if self._at < 0:
            return
        for fd in (self.work_fd, self.private):  # before: if there are no more descriptors, removing takes these
            os.close(fd)
        try:
            with Doing(f"removing the staging directory {os.path.dirname(self.place)}"):
                remove_tree(self._name, self._at)
        finally:
            for fd in (self._fd, self._at):
                os.close(fd)
            self._at = -1


def sweep(at: int) -> None:
    """Remove what killed runs left in a staging directory.

    What cannot be removed is left for the next time: sweeping must not keep anybody from working.
    """
    for name in os.listdir(at):
        _sweep(name, at)


def _sweep(name: str, at: int, owner: int | None = None) -> None:
    """Remove what nobody holds, and if it is the ``owner``'s, where one is given."""
    with contextlib.suppress(OSError), Descriptor(open_file(name, at)) as fd:
        if owner in (None, os.fstat(fd).st_uid) and try_lock(fd, exclusive=True):
            remove_tree(name, at)
