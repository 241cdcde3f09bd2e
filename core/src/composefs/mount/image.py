"""Mounting an image that is an open file: the two steps, and what is checked before them."""

from __future__ import annotations

import errno
import os

from composefs.errors import NotFoundError, UsageError
from composefs.mount.erofs import mounted_erofs
from composefs.mount.overlay import Options, mount_overlay

__all__ = ["mount_file", "no_directory"]


def no_directory(path: str) -> NotFoundError:
    """Return the error for a place to mount at, or a layer, that is no directory."""
    import shlex

    hint = "give a directory"
    try:
        os.lstat(path)
    except OSError as error:
        dead = error.errno == errno.ENOTCONN  # what stands there is a mount of FUSE without its server
        hint = ("unmount what was there: cfsctl umount " if dead else "make it first: mkdir ") + shlex.quote(path)
    return NotFoundError(f"{path} is not a directory", subject=path, hint=hint)


def mount_file(image: int, mountpoint: str | os.PathLike[str], options: Options, name: str) -> None:
    """Mount the image in the open file ``image``, called ``name`` in messages; its digest is the caller's business.

    Raises NotFoundError, FormatError, PermissionDeniedError, UnsupportedError and UsageError.
    """
    if (options.upperdir is None) != (options.workdir is None):
        raise UsageError("an upper directory needs a work directory, and the other way round")
    for path in (mountpoint, options.upperdir, options.workdir):
        if path is not None and not os.path.isdir(path):
            raise no_directory(os.fspath(path))
    with mounted_erofs(image, name, options.idmap) as lower:
        mount_overlay(lower, options, os.fspath(mountpoint), f"mounting {name}")
