"""Adoption: taking a file that an extension staged into ``objects/``, without copying it where that is safe.

The extension may be hostile, and may still have the file open.  In order: the file moves out of its reach into a
private directory (for that to be so, it must have been unable to make hard links: :mod:`composefs.linux.seccomp`); it
must be a regular file with one link; it gets our owner, mode 0444 and no extended attributes or ACLs; nobody may have
it open for writing, and nobody can open it so while it is hashed; then it is hashed and named.  Being open for writing
is found by fs-verity in a secure repository (enabling it fails with ETXTBSY) and by a read lease in an insecure one
(fcntl(2), F_SETLEASE).  A file that fails this last test is copied, and so is one that cannot be made ours and bare:
those of NFS v4 keep an attribute, system.nfs4_acl, and root's belong to nobody where the server squashes root.

The cost of a file is twelve system calls: rename, open, two of fstat, listxattr, two for the lease, one read if it is
small, one for the lease, link, unlink, close; and fchmod if it was not staged with the mode of objects.  A new file of
2,500 bytes takes 50 microseconds on tmpfs (Python 3.11, one core): 9 of them the sha512 digest, 17 rename, link and
unlink, 5 the lease.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from functools import partial
from typing import TYPE_CHECKING

from composefs import fsverity
from composefs.errors import CorruptError, NotFoundError, UsageError
from composefs.linux import verity
from composefs.linux.content import lease, lease_is_unbroken
from composefs.linux.files import NewFile, open_file, xattr_names
from composefs.repository.objects import Stored, store_copy
from composefs.repository.sealing import OBJECT_MODE, seal
from composefs.repository.store import not_regular

if TYPE_CHECKING:
    from composefs.repository.facade import Repository

__all__ = ["Adoption"]

# The kernel puts the label of the file's new place on it, and lets nobody remove it.
_KEPT_XATTRS = frozenset({"security.selinux"})

_OBJECT = stat.S_IFREG | OBJECT_MODE

_numbers = itertools.count()
"""What files are called in the private directory."""


class _Hidden:
    """A file in the private directory; it keeps its name there unless it takes one in ``objects/``."""

    __slots__ = ("_at", "_name", "fd", "remains")

    def __init__(self, at: int, name: str, fd: int) -> None:
        self._at = at
        self._name = name
        self.fd = fd
        self.remains = True

    def link(self, at: int, name: str) -> None:
        os.link(self._name, name, src_dir_fd=self._at, dst_dir_fd=at, follow_symlinks=False)
        os.unlink(self._name, dir_fd=self._at)
        self.remains = False

    def replace(self, at: int, name: str) -> None:
        os.rename(self._name, name, src_dir_fd=self._at, dst_dir_fd=at)
        self.remains = False


class Adoption:
    """Takes files of one directory, ``source``, into a repository.

    Both directories are open: ``private`` is one on the same file system that only this program can write to.
    """

    def __init__(self, repository: Repository, source: int, private: int) -> None:
        self._objects = repository.objects
        self._store = repository.store
        self._source = source
        self._private = private
        self._owner = (os.geteuid(), os.getegid())

    def take(self, name: str, *, size: int | None = None, expect: str | None = None) -> Stored:
        """Store a file and remove it from where it is.

        ``size`` and ``expect``, an id, are what the file must have.  After an error the file is where it was.  Raises
        UsageError for what is no plain file, CorruptError for an unexpected size or id, and others.
        """
        if not self._store.writable:
            self._store.require_writable(f"storing {name!r}")
        if "/" in name:
            raise UsageError(f"{name!r} is not the name of a staged file")
        hidden = str(next(_numbers))
        try:
            os.rename(name, hidden, src_dir_fd=self._source, dst_dir_fd=self._private)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise NotFoundError(f"there is no staged file {name!r}", subject=name) from error
            raise self._store.failed(error, f"storing {name!r}") from error
        try:
            return self._take(name, hidden, size, expect)
        except BaseException as error:
            # If the name is a directory by now, or the disk fails, the error at hand says more.
            with contextlib.suppress(OSError):
                os.rename(hidden, name, src_dir_fd=self._private, dst_dir_fd=self._source)
            if isinstance(error, OSError):
                if error.filename == hidden:
                    error.filename = name  # what whoever staged it knows it by
                raise self._store.failed(error, f"storing {name!r}") from error
            raise

    def _take(self, name: str, hidden: str, size: int | None, expect: str | None) -> Stored:
        """Do the same with a file that is in the private directory."""
        try:
            fd = open_file(hidden, self._private)
        except OSError as error:
            if odd := not_regular(hidden, self._private):
                raise UsageError(f"the staged file {name!r} is {odd}", subject=name) from error
            raise
        try:
            actual, ours = self._own(fd, name)
            if size is not None and actual != size:
                raise CorruptError(f"the staged file {name!r} has {actual} bytes, not {size}", subject=name)
            file = _Hidden(self._private, hidden, fd)
            object_id = self._digest_in_place(fd, actual) if ours else None
            if object_id is None or os.fstat(fd).st_size != actual:  # written to before nobody could
                stored = self._copy(fd, name, size, expect)
            else:
                _check_expected(object_id, expect, name)
                stored = self._objects.give_name(file, object_id, actual, "moved")
            if file.remains:
                os.unlink(hidden, dir_fd=self._private)
            return stored
        finally:
            os.close(fd)

    def _own(self, fd: int, name: str) -> tuple[int, bool]:
        """Check that a file is plain, make it ours and bare; return its size, and whether it could be made so."""
        status = os.fstat(fd)
        mode = status.st_mode
        if not stat.S_ISREG(mode):
            raise UsageError(f"the staged file {name!r} is not a regular file", subject=name)
        if status.st_nlink != 1:
            raise UsageError(f"the staged file {name!r} has {status.st_nlink} links; it must have one", subject=name)
        try:
            if (status.st_uid, status.st_gid) != self._owner:
                os.fchown(fd, *self._owner)
                mode = 0  # unknown: until now its owner, another account, could change it
            if unwanted := [name for name in xattr_names(fd) if name not in _KEPT_XATTRS]:
                os.fchmod(fd, 0o600)  # who is not root takes attributes only from what they may write
                mode = 0
                for attribute in unwanted:
                    os.removexattr(fd, attribute)
        except OSError:
            return status.st_size, False
        # After the ACL is gone: it would decide about the group's bits.
        if mode != _OBJECT:
            os.fchmod(fd, OBJECT_MODE)
        return status.st_size, True

    def _digest_in_place(self, fd: int, size: int) -> str | None:
        """Return the id of a file that nobody can change meanwhile or, in a secure repository, ever; None if unsure."""
        if self._store.secure:
            # A file that has fs-verity already may have it with a salt or other blocks, which make another digest.
            measured = verity.measure(fd) if seal(fd, self._store) else None
            return measured[1].hex() if measured else None
        if not lease(fd):
            return None
        is_still = partial(lease_is_unbroken, fd)
        digest = fsverity.digest_fd(fd, self._store.algorithm, self._store.interrupted, size=size, is_still=is_still)
        return digest.hex() if lease_is_unbroken(fd) else None

    def _copy(self, fd: int, name: str, size: int | None, expect: str | None) -> Stored:
        with NewFile(self._store.scratch, OBJECT_MODE) as new:
            object_id, actual, how = store_copy(fd, new, self._store)
            if size is not None and actual != size:
                raise CorruptError(f"the staged file {name!r} was changed while it was copied", subject=name)
            _check_expected(object_id, expect, name)
            return self._objects.finish(new, object_id, actual, how)


def _check_expected(object_id: str, expect: str | None, name: str) -> None:
    if expect is not None and object_id != expect:
        raise CorruptError(f"the staged file {name!r} has the id {object_id}, not {expect}", subject=name)
