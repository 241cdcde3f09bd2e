"""Mounting an image that is an open file: the two steps, and what is checked before them."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from composefs.errors import NotFoundError, UsageError
from composefs.mount.erofs import mounted_erofs
from composefs.mount.overlay import Overlay, mount_overlay

__all__ = ["Options", "mount_file", "no_directory"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How an image is mounted.

    ``objects`` are the directories where contents are looked for, in order.  ``verity``: "require" lets the kernel
    refuse contents without the right fs-verity digest, "try" does so where the kernel knows how to.  Nothing can be
    written without ``upperdir`` and ``workdir``, whatever ``read_only`` says.  ``attributes`` are others of the
    mount, as mount(8) calls them ("nosuid"; composefs.linux.mountapi.ATTRIBUTES has all).  ``idmap`` is a descriptor of
    a user namespace.
    """

    objects: Sequence[str]
    verity: Literal["off", "try", "require"] = "off"
    upperdir: str | os.PathLike[str] | None = None
    workdir: str | os.PathLike[str] | None = None
    read_only: bool = True
    attributes: Collection[str] = ()
    idmap: int | None = None


def no_directory(path: str) -> NotFoundError:
    """Return the error for a place to mount at, or a layer, that is no directory."""
    import shlex

    hint = "give a directory" if os.path.lexists(path) else f"make it first: mkdir {shlex.quote(path)}"
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
        overlay = Overlay(
            lower=lower,
            objects=tuple(map(os.path.abspath, options.objects)),
            upper=None if options.upperdir is None else os.path.abspath(options.upperdir),
            work=None if options.workdir is None else os.path.abspath(options.workdir),
            verity=options.verity,
            attributes=frozenset([*options.attributes, *(["ro"] if options.read_only else [])]),
        )
        mount_overlay(overlay, os.path.abspath(mountpoint), f"mounting {name}")
