"""Mounting an image without the kernel's EROFS: a FUSE server, for users who may not mount anything else.

The image is read as paths are asked for, contents come out of the objects by pread(2), and the kernel caches both for
good, as nothing ever changes.  It needs mfusepy, which is installed by ``pip install composefs[fuse]``, and libfuse.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from composefs.digest import Algorithm
from composefs.erofs.layout import BLOCK
from composefs.erofs.reader import Lookup
from composefs.errors import ComposefsError, FormatError, NotFoundError, UnsupportedError
from composefs.linux import verity
from composefs.linux.closing import close_inherited
from composefs.linux.files import open_file
from composefs.mount.image import no_directory
from composefs.repository import Repository
from composefs.repository.names import object_name
from composefs.tree import MAX_NAME, Node

__all__ = ["FuseImage", "serve"]

_DEVICE = "/dev/fuse"
_FOREVER = 86400
"""Seconds for which the kernel need not ask again."""
_STOPPED = {7, 8}
"""What fuse_main of libfuse 3 returns for a mount that stood and that a signal has ended; 7 in older versions."""

P = ParamSpec("P")
R = TypeVar("R")


def _errno_of(call: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of ours into an errno: ENOENT for what is not there, EIO for damage, as in the kernel."""

    @wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except NotFoundError as error:
            raise OSError(errno.ENOENT, error.message) from error
        except ComposefsError as error:
            raise OSError(errno.EIO, error.message) from error

    return wrapped


class FuseImage:
    """The operations of FUSE's high-level interface on one image; paths come as str with surrogate escapes.

    It holds what it needs of the repository, not its lock.  In a secure repository a file can be opened only if the
    kernel vouches for its object's digest, and then checks each page that is read.
    """

    use_ns = True
    """Times are integers, in nanoseconds."""

    def __init__(self, repository: Repository, image_id: str) -> None:
        repository.images.require_named(image_id)
        self._algorithm: Algorithm = repository.algorithm
        self._secure = repository.secure
        self._held = ExitStack()
        image = self._held.enter_context(repository.images.load(image_id))
        self._lookup = Lookup(image, repository.images.rules)
        self._size = len(image.data)
        self._objects = os.dup(repository.store.objects)

    def close(self) -> None:
        """Let go of image and objects."""
        self._held.close()
        os.close(self._objects)

    def _node(self, path: str) -> Node:
        return self._lookup.node(os.fsencode(path))

    @_errno_of
    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:  # noqa: ARG002 - FUSE's signature
        """Return what stat(2) shows."""
        number, node = self._lookup.find(os.fsencode(path))
        time = node.mtime[0] * 1_000_000_000 + node.mtime[1]
        return {
            "st_ino": number + 1,  # 0 is no number
            "st_mode": node.mode,
            "st_nlink": node.nlink,
            "st_uid": node.uid,
            "st_gid": node.gid,
            "st_rdev": node.rdev,
            "st_size": node.size,
            "st_blocks": -(-node.size // 512),
            "st_atime": time,
            "st_mtime": time,
            "st_ctime": time,
        }

    def statfs(self, path: str) -> dict[str, int]:  # noqa: ARG002 - FUSE's signature
        """Return how large the image is, without its objects, and that it is full; df(1) hides what has no blocks."""
        return {"f_bsize": BLOCK, "f_frsize": BLOCK, "f_blocks": -(-self._size // BLOCK), "f_namemax": MAX_NAME}

    @_errno_of
    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:  # noqa: ARG002 - FUSE's signature
        """Return the names in a directory, with the numbers of getattr: a shell's * leaves out what has number 0."""
        here = os.fsencode(path)
        entries = [(b".", *self._lookup.find(here)), (b"..", *self._lookup.find(os.path.dirname(here)))]
        return [
            (os.fsdecode(name), {"st_ino": number + 1, "st_mode": node.mode}, 0)
            for name, number, node in entries + self._lookup.entries(here)
        ]

    @_errno_of
    def readlink(self, path: str) -> str:
        """Return a symbolic link's target."""
        return os.fsdecode(self._node(path).payload or b"")

    @_errno_of
    def listxattr(self, path: str) -> list[str]:
        """Return the names of the extended attributes."""
        return [os.fsdecode(name) for name in self._node(path).xattrs]

    @_errno_of
    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:  # noqa: ARG002 - FUSE's signature
        """Return the value of an extended attribute."""
        value = self._node(path).xattrs.get(os.fsencode(name))
        if value is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return bytes(value)

    @_errno_of
    def open(self, path: str, flags: int) -> int:
        """Open a file: return the descriptor of its object, 0 where the image itself has the content."""
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        node = self._node(path)
        if node.content is not None or not node.size:
            return 0
        if node.digest is None:
            raise FormatError(f"{path} does not say which object it is")
        fd = open_file(object_name(node.digest.hex()), self._objects)
        try:
            if os.fstat(fd).st_size != node.size:  # the kernel would take an early end for the size, for good
                raise OSError(errno.EIO, "the object has not got the right size")
            if self._secure and verity.measure(fd) != (self._algorithm, node.digest):
                raise OSError(errno.EIO, "the object has not got the right fs-verity digest")
        except BaseException:
            os.close(fd)
            raise
        return fd

    @_errno_of
    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return a piece of a file."""
        if fh:
            return os.pread(fh, size, offset)
        return (self._node(path).content or b"")[offset : offset + size]

    def release(self, path: str, fh: int) -> int:  # noqa: ARG002 - FUSE's signature
        """Close a file."""
        if fh:
            os.close(fh)
        return 0


def serve(image: FuseImage, mountpoint: str, *, foreground: bool) -> None:
    """Mount at a directory and serve until it is unmounted.

    Without ``foreground`` the process ends here, with status 0, once it is mounted, and a daemon goes on.  Raises
    NotFoundError, and UnsupportedError where mfusepy or libfuse is not installed or the mount fails.
    """
    if not os.path.isdir(mountpoint):
        raise no_directory(mountpoint)
    mfusepy = _load()
    options: dict[str, Any] = {
        "fsname": "composefs",
        "subtype": "composefs",
        "ro": True,
        "default_permissions": True,  # the kernel checks modes and owners
        "attr_timeout": _FOREVER,
        "entry_timeout": _FOREVER,
        "negative_timeout": _FOREVER,
        "kernel_cache": True,
        "use_ino": True,  # so that the names of one file can be told to be that
        # One thread: the reader is Python, which runs in one at a time anyway.
        "nothreads": True,
    }
    if os.geteuid() == 0:
        # As with any mount of root's: for all, with devices and setuid programs.  Users need user_allow_other in
        # fuse.conf for the one, and may not have the others.
        options.update(allow_other=True, dev=True, suid=True)
    where = os.path.realpath(mountpoint)  # which may lead through a descriptor
    if not foreground:
        close_inherited()  # such as flock's lock, which is for the command, not for the daemon
    # Each open file is a descriptor here, whoever opens it.
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        mfusepy.FUSE(image, where, foreground=foreground, **options)
    except RuntimeError as error:
        if _STOPPED.isdisjoint(error.args):
            raise UnsupportedError(f"mounting at {mountpoint} with FUSE failed", hint=_lacking(mountpoint)) from error
    finally:
        image.close()


def _lacking(mountpoint: str) -> str:
    """Return what to do where a mount has failed, of which libfuse tells nothing but on standard error."""
    if not os.path.exists(_DEVICE):
        return "the kernel has no FUSE; try `modprobe fuse`"
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return f"check the owner and mode of {_DEVICE}, which you may not open"
    if not os.access(mountpoint, os.W_OK):
        return f"users but root mount only where they may write; check the owner and mode of {mountpoint}"
    return "users but root need fusermount3 (package fuse3)"


def _load() -> Any:
    try:
        import mfusepy
    except ImportError as error:
        raise UnsupportedError(
            "FUSE needs the Python package mfusepy", hint="pip install 'composefs[fuse]', or mount as root"
        ) from error
    except OSError as error:  # it found no libfuse
        raise UnsupportedError(f"FUSE needs libfuse: {error}", hint="install the package libfuse3") from error
    return mfusepy
