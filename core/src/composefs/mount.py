"""Mounting an image: EROFS for the metadata, and overlayfs over it, which finds the contents among the objects.

The EROFS image becomes the only lower layer of an overlay whose data-only layer is ``objects/``.  A file in the image
has the name of its object in ``trusted.overlay.redirect`` and that one's digest in ``trusted.overlay.metacopy`` (kernel
documentation, filesystems/overlayfs.rst, "Data-only lower layers" and "fs-verity support").  In a secure repository
the overlay is told ``verity=require``: then the kernel compares that digest with the object's fs-verity at every open.

What older kernels lack is replaced: a file-backed EROFS (before Linux 6.12, ENOTBLK) by a loop device, the mount API
for overlayfs (before 6.5) by mount(2).  There is no replacement for ``verity=require`` (before 6.6).
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from composefs.erofs.layout import COMPOSEFS_HAS_ACL, COMPOSEFS_HEADER_VERSION, COMPOSEFS_MAGIC, HEADER
from composefs.errors import (
    ComposefsError,
    FormatError,
    NotFoundError,
    PermissionDeniedError,
    UnsupportedError,
    UsageError,
    from_os_error,
)
from composefs.linux import mountapi
from composefs.linux.loop import loop_device
from composefs.repository import Repository

__all__ = ["mount_image"]


@dataclass(frozen=True, slots=True)
class _Overlay:
    """The parameters of the overlay; paths as strings."""

    lower: str
    objects: str
    upper: str | None
    work: str | None
    verity: bool
    read_only: bool


def mount_image(
    repository: Repository,
    image_id: str,
    mountpoint: str | os.PathLike[str],
    *,
    upperdir: str | os.PathLike[str] | None = None,
    workdir: str | os.PathLike[str] | None = None,
    read_write: bool = False,
) -> None:
    """Mount an image of the repository at a directory.

    The image must have ``images/ID``, and its digest is checked first.  ``upperdir`` and ``workdir``, empty on one file
    system, take what is written where ``read_write`` allows it.  One umount(8) of the mountpoint undoes everything.
    Raises NotFoundError, CorruptError, PermissionDeniedError, UnsupportedError, and UsageError for arguments that do
    not go together.
    """
    if (upperdir is None) != (workdir is None):
        raise UsageError("an upper directory needs a work directory, and the other way round")
    if read_write and upperdir is None:
        raise UsageError("a writable mount needs an upper and a work directory", hint="give --upperdir and --workdir")
    for path in (mountpoint, upperdir, workdir):
        if path is not None and not os.path.isdir(path):
            raise NotFoundError(f"{os.fspath(path)} is not a directory", subject=os.fspath(path))
    if not repository.images.is_named(image_id):
        raise NotFoundError(f"there is no image {image_id}", subject=image_id, hint="`cfsctl images` lists them")
    image = repository.images.open(image_id)
    try:
        with _mounted_erofs(image, image_id) as lower:
            overlay = _Overlay(
                lower,
                str(repository.path / "objects"),
                None if upperdir is None else os.path.abspath(upperdir),
                None if workdir is None else os.path.abspath(workdir),
                repository.secure,
                not read_write,
            )
            _mount_overlay(overlay, os.path.abspath(mountpoint), f"mounting image {image_id}")
    finally:
        os.close(image)


@contextlib.contextmanager
def _mounted_erofs(image: int, image_id: str) -> Iterator[str]:
    """Have the image mounted at a temporary directory; the overlay keeps it in use afterwards."""
    what = f"mounting image {image_id}"
    try:
        header = os.pread(image, HEADER.size, 0)
    except OSError as error:  # fs-verity found another content
        raise from_os_error(error, f"reading object {image_id}") from error
    if len(header) < HEADER.size:
        raise FormatError(f"object {image_id} is too short for an image", offset=len(header), subject=image_id)
    magic, version, flags, _ = HEADER.unpack(header)
    if magic != COMPOSEFS_MAGIC:
        raise FormatError(f"object {image_id} is not a composefs image", offset=0, subject=image_id)
    # Without ACLs the kernel need not look for them.  The header of format 2 has another version and never tells.
    without_acls = version == COMPOSEFS_HEADER_VERSION and not flags & COMPOSEFS_HAS_ACL
    options = ["noacl"] if without_acls else []
    with tempfile.TemporaryDirectory(prefix="composefs-") as directory:
        try:
            _mount_erofs(f"/proc/self/fd/{image}", directory, options)
        except OSError as error:
            if error.errno != errno.ENOTBLK:
                raise _failure(error, what, "the EROFS image", "erofs") from error
            _mount_erofs_by_loop(image, directory, options, what)
        try:
            yield directory
        finally:
            mountapi.detach(directory)


def _mount_erofs(source: str, directory: str, options: list[str]) -> None:
    """Mount an EROFS image read-only.  Raises ``OSError``."""
    try:
        context = mountapi.Context("erofs")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        mountapi.mount(source, directory, "erofs", mountapi.MS_RDONLY, ",".join(options))
        return
    with context:
        context.string("source", source)
        for option in ["ro", *options]:
            context.flag(option)
        context.create()
        _attach(context, directory, read_only=True)


def _mount_erofs_by_loop(image: int, directory: str, options: list[str], what: str) -> None:
    try:
        device, path = loop_device(image)
    except OSError as error:
        raise _failure(error, what, "a loop device for the EROFS image", "loop") from error
    try:
        _mount_erofs(path, directory, options)
    except OSError as error:
        raise _failure(error, what, "the EROFS image on a loop device", "erofs") from error
    finally:
        os.close(device)


def _attach(context: mountapi.Context, path: str, *, read_only: bool) -> None:
    mount = context.mount(read_only=read_only)
    try:
        mountapi.attach(mount, path)
    finally:
        os.close(mount)


def _mount_overlay(overlay: _Overlay, mountpoint: str, what: str) -> None:
    try:
        context = mountapi.Context("overlay")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise _failure(error, what, "overlayfs", "overlay") from error
        _mount_overlay_legacy(overlay, mountpoint, what)
        return
    with context:
        if not _configure(context, overlay, what):
            _mount_overlay_legacy(overlay, mountpoint, what)
            return
        try:
            context.create()
            _attach(context, mountpoint, read_only=overlay.read_only)
        except OSError as error:
            raise _failure(error, what, f"overlayfs at {mountpoint}", "overlay", context.messages()) from error


def _configure(context: mountapi.Context, overlay: _Overlay, what: str) -> bool:
    """Set all parameters; False if this kernel does not know them in the mount API."""
    try:
        context.string("composefs-probe", "1")
    except OSError:
        context.messages()  # the complaint about it must not be taken for the reason of a later failure
    else:
        return False  # a kernel where overlayfs takes anything now, and parses it as one string later
    parameters = [("source", "composefs"), ("metacopy", "on"), ("redirect_dir", "on")]
    if overlay.verity:
        parameters.append(("verity", "require"))
    parameters += [("lowerdir+", overlay.lower), ("datadir+", overlay.objects)]
    if overlay.upper is not None and overlay.work is not None:
        parameters += [("upperdir", overlay.upper), ("workdir", overlay.work)]
    for name, value in parameters:
        try:
            context.string(name, value)
        except OSError as error:
            if error.errno == errno.EINVAL and name in ("lowerdir+", "datadir+"):
                return False
            raise _failure(error, what, f"overlayfs parameter {name}={value}", "overlay", context.messages()) from error
    return True


def _mount_overlay_legacy(overlay: _Overlay, mountpoint: str, what: str) -> None:
    """Mount by mount(2), where parameters are one string; paths of descriptors need no escapes in it."""
    with contextlib.ExitStack() as stack:

        def path_of(directory: str) -> str:
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            return f"/proc/self/fd/{fd}"

        options = ["metacopy=on", "redirect_dir=on"]
        if overlay.verity:
            options.append("verity=require")
        if overlay.upper is not None and overlay.work is not None:
            options += [f"upperdir={path_of(overlay.upper)}", f"workdir={path_of(overlay.work)}"]
        lower, objects = path_of(overlay.lower), path_of(overlay.objects)
        flags = mountapi.MS_RDONLY if overlay.read_only else 0
        # Data-only layers are known since Linux 6.5; before, the objects are a lower layer like any other.
        for separator in ("::", ":"):
            text = ",".join([*options, f"lowerdir={lower}{separator}{objects}"])
            try:
                mountapi.mount("composefs", mountpoint, "overlay", flags, text)
            except OSError as error:
                if error.errno == errno.EINVAL and separator == "::":
                    continue
                raise _failure(error, what, f"overlayfs at {mountpoint} ({text})", "overlay") from error
            return


def _failure(error: OSError, what: str, step: str, module: str, messages: list[str] | None = None) -> ComposefsError:
    """Make an error that says which step failed, and what the kernel lacks or says."""
    reason = os.strerror(error.errno or 0)
    message = f"{what}: {step}: {reason}"
    causes = tuple(messages or ())
    match error.errno:
        case errno.ENODEV:
            return UnsupportedError(message, causes=causes, hint=f"the kernel has no {module}; try `modprobe {module}`")
        case errno.EPERM | errno.EACCES:
            return PermissionDeniedError(message, causes=causes, hint="mounting needs CAP_SYS_ADMIN: run as root")
        case errno.EINVAL if "verity=" in step:
            return UnsupportedError(
                message, causes=causes, hint="overlayfs checks fs-verity since Linux 6.6; this repository demands it"
            )
        case errno.EINVAL | errno.EOPNOTSUPP:
            return UnsupportedError(
                message, causes=causes, hint=None if causes else "the kernel's log, dmesg, says why"
            )
    made = from_os_error(error, f"{what}: {step}")
    made.causes = causes
    return made
