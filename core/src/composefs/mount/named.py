"""Mounting an image of a repository, as the repository demands it."""

from __future__ import annotations

import os

from composefs.errors import UsageError
from composefs.linux.closing import Descriptor
from composefs.mount.image import mount_file
from composefs.mount.overlay import Options
from composefs.repository import Repository

__all__ = ["mount_image"]


def mount_image(
    repository: Repository,
    image_id: str,
    mountpoint: str | os.PathLike[str],
    *,
    upperdir: str | os.PathLike[str] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    read_write: bool = False,
    idmap: int | None = None,
) -> None:
    """Mount an image of the repository at a directory.

    The image must have ``images/ID``, and its digest is checked first.  fs-verity is demanded exactly when the
    repository is secure.  ``upperdir`` and ``workdir``, empty on one file system, take what is written where
    ``read_write`` allows it; ``idmap`` is a descriptor of the user namespace whose ids owners are shown in.  One
    umount(8) of the mountpoint undoes everything.  Raises NotFoundError, CorruptError, FormatError,
    PermissionDeniedError, UnsupportedError, and UsageError for arguments that do not go together.
    """
    if read_write and upperdir is None:
        raise UsageError("a writable mount needs an upper and a work directory", hint="give --upperdir and --workdir")
    options = Options(
        objects=(str(repository.path / "objects"),),
        verity="require" if repository.secure else "off",
        upperdir=upperdir,
        workdir=workdir,
        attributes=frozenset() if read_write else frozenset({"ro"}),
        idmap=idmap,
    )
    repository.images.require_named(image_id)
    with Descriptor(repository.images.open(image_id)) as image:
        mount_file(image, mountpoint, options, f"image {image_id} in {repository.path}")
