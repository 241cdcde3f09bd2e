"""The first step: the EROFS image, mounted at a temporary directory for as long as the overlay is being made."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

from composefs.erofs.layout import COMPOSEFS_HAS_ACL, COMPOSEFS_MAGIC, HEADER
from composefs.errors import FormatError
from composefs.linux import mountapi
from composefs.linux.files import random_name, temporary_place
from composefs.linux.loop import loop_device
from composefs.mount.failure import failure
from composefs.systemerrors import Doing

__all__ = ["mounted_erofs"]


@contextlib.contextmanager
def mounted_erofs(image: int, name: str, idmap: int | None) -> Iterator[str]:
    """Mount an image, and yield where; in the end it is unmounted, but stays in use by what was built on it.

    It is attached, although a detached mount would do: only Linux 6.13 and later take one as an overlay's layer.
    """
    what = f"mounting {name}"
    options = ["noacl"] if _has_no_acls(image, name) else []
    with _temporary_directory(what) as directory:
        try:
            _mount_file(image, directory, options, idmap, what)
            yield directory
        finally:
            # At once, as another signal may end us here.
            with Doing(f"{what}: unmounting the EROFS image at {directory}"):
                try:
                    mountapi.unmount(directory, lazy=True)
                except OSError:
                    if os.path.ismount(directory):
                        raise


@contextlib.contextmanager
def _temporary_directory(what: str) -> Iterator[str]:
    """Have an empty directory to mount at; nothing is lost if it stays, as where something is mounted there still."""
    directory = f"{temporary_place()}/composefs-{random_name()}"
    with Doing(f"{what}: making a directory to mount at"):
        os.mkdir(directory, 0o700)
    try:
        yield directory
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(directory)


def _has_no_acls(image: int, name: str) -> bool:
    """Tell whether the kernel need not look for ACLs: images of formats 0 and 1 say so, those of format 2 never."""
    with Doing(f"reading {name}"):  # which fails where fs-verity finds other content
        header = os.pread(image, HEADER.size, 0)
    if len(header) < HEADER.size:
        raise FormatError(f"{name} is too short for an image", offset=len(header), subject=name)
    magic, _, flags, version = HEADER.unpack(header)
    if magic != COMPOSEFS_MAGIC:
        hint = "mkcomposefs and `cfsctl create-image` make such images"
        raise FormatError(f"{name} is not a composefs image", offset=0, subject=name, hint=hint)
    return bool(version < 2 and not flags & COMPOSEFS_HAS_ACL)


def _mount(source: str, directory: str, options: Sequence[str], idmap: int | None) -> None:
    """Mount an EROFS image read-only.  Raises ``OSError``."""
    with mountapi.Context("erofs") as context:
        context.string("source", source)
        for option in ["ro", *options]:
            context.flag(option)
        context.create()
        mountapi.attach_new(context, directory, ["ro"], idmap=idmap)


def _mount_file(image: int, directory: str, options: Sequence[str], idmap: int | None, what: str) -> None:
    """Mount an EROFS image in an open file, or by a loop device where the kernel wants a block device."""
    try:
        _mount(f"/proc/self/fd/{image}", directory, options, idmap)
    except OSError as error:
        if error.errno != errno.ENOTBLK:
            raise failure(error, what, "the EROFS image", "erofs") from error
        _mount_by_loop(image, directory, options, idmap, what)


def _mount_by_loop(image: int, directory: str, options: Sequence[str], idmap: int | None, what: str) -> None:
    try:
        device, path = loop_device(image)
    except OSError as error:
        raise failure(error, what, "a loop device for the EROFS image", "loop") from error
    try:
        _mount(path, directory, options, idmap)
    except OSError as error:
        raise failure(error, what, "the EROFS image on a loop device", "erofs") from error
    finally:
        os.close(device)
