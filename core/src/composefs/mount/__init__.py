"""Mounting images: EROFS for the metadata, and overlayfs over it, which finds the contents among the objects.

The EROFS image becomes the only lower layer of an overlay whose data-only layers are the directories of objects.  A
file in the image has the name of its object in ``trusted.overlay.redirect`` and that one's digest in
``trusted.overlay.metacopy`` (kernel documentation, filesystems/overlayfs.rst, "Data-only lower layers" and "fs-verity
support").  With ``verity=require`` the kernel compares that digest with the object's fs-verity at every open.

What older kernels lack is replaced: a file-backed EROFS (before Linux 6.12, ENOTBLK, and for files on tmpfs) by a loop
device, the mount API for overlayfs (before 6.8) by mount(2).  Nothing replaces ``verity=require`` (before 6.6).
"""

from __future__ import annotations

from composefs.mount.image import mount_file
from composefs.mount.named import mount_image
from composefs.mount.overlay import Options
from composefs.mount.unmount import unmount

__all__ = ["Options", "mount_file", "mount_image", "unmount"]
