"""Making repositories, bringing old ones up to date, and starting anew with the objects that are there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Literal

from composefs.digest import Algorithm
from composefs.errors import CorruptError, ExistsError, UnsupportedError, from_os_error
from composefs.imageformats import DEFAULT_EROFS_FORMAT
from composefs.linux.closing import Descriptor
from composefs.linux.files import NewFile, open_or_make_directory, random_name, sync_directory
from composefs.meta import Meta
from composefs.repository import metafile
from composefs.repository.names import TEMPORARY_PREFIX
from composefs.repository.staging import sweep
from composefs.repository.store import no_directory

__all__ = ["init", "reset"]


def init(
    path: str | os.PathLike[str],
    *,
    algorithm: Algorithm,
    erofs_default: int | None = None,
    insecure: bool = False,
    upgrade: bool = False,
    wait: float = 0.0,
) -> Literal["initialized", "already", "upgraded"]:
    """Make a repository, with the directories above it, or find that there is one like it already.

    A secure one fails where the file system has no fs-verity (UnsupportedError).  A repository with another algorithm
    or another default EROFS format (None takes any, and makes 1), or an insecure one where a secure one is asked for,
    raises ExistsError; so does one without meta.json, unless ``upgrade`` says to write that.  BusyError while garbage
    is collected there, after ``wait`` seconds.

    All that a repository takes is tried in the nearest directory that is there, before any is made.
    """
    path = near = os.path.abspath(path)
    while not os.path.exists(near):
        near = os.path.dirname(near)
    is_new = near != path
    try:
        with Descriptor(os.open(near, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as at:
            if not is_new:
                metafile.lock_root(at, f"the directory {path}", exclusive=False, wait=wait)
            legacy = None if is_new or metafile.is_there(at) else metafile.read_legacy(at, path)
            # Asked again: who has made it in between may have stored objects already.
            if is_new or not metafile.is_there(at):
                default, secure = DEFAULT_EROFS_FORMAT, not insecure
                if legacy is not None:
                    default, secure = legacy.meta.erofs_default, legacy.secure
                    _require_upgrade(path, upgrade)
                    _require_like(path, legacy, algorithm, None, insecure)
                meta = Meta.new(algorithm, default if erofs_default is None else erofs_default)
                _require_links(at, path)
                if _write(at, path, meta, secure=secure):
                    return "initialized" if legacy is None else "upgraded"
        with Descriptor(metafile.open_root(path)) as root:
            existing = metafile.read(root, path)
    except (FileExistsError, NotADirectoryError) as error:
        raise ExistsError(
            f"no repository can be made at {path}: what is there, or above it, is not a directory",
            hint="move it away, or name another place",
            subject=path,
        ) from error
    except OSError as error:
        error.filename = path
        raise from_os_error(error, f"making the repository {path}") from error
    _require_like(path, existing, algorithm, erofs_default, insecure)
    return "already"


def reset(
    path: str | os.PathLike[str],
    *,
    algorithm: Algorithm,
    erofs_default: int | None = None,
    insecure: bool = False,
    wait: float = 0.0,
) -> None:
    """Remove all names of streams and images and write a new meta.json; the objects stay.

    meta.json may be damaged.  Raises NotFoundError for a directory that is no repository, ExistsError when the objects
    have another algorithm, BusyError, and what :func:`init` raises; then the names are still there.
    """
    path = os.path.abspath(path)
    root = metafile.open_root(path)
    try:
        metafile.lock_root(root, f"the repository {path}", exclusive=True, wait=wait)
        objects = metafile.read_legacy(root, path)
        if objects is None and not metafile.is_there(root):
            raise metafile.no_repository(path)
        if objects is not None and objects.meta.algorithm != algorithm:
            has = objects.meta.algorithm
            raise ExistsError(f"{path} has {has} objects", subject=path, hint=f"say --algorithm {has.meta_name}")
        meta = Meta.new(algorithm, DEFAULT_EROFS_FORMAT if erofs_default is None else erofs_default)
        # What cannot be had shows before anything is removed.  Then names first: the old meta.json without any of them
        # is a repository too.
        with metafile.prepared(root, meta, secure=not insecure) as new:
            _require_places(root, path)
            _remove_names(root)
            metafile.put_in_place(root, new.replace)
    except OSError as error:
        error.filename = path
        raise from_os_error(error, f"resetting the repository {path}") from error
    finally:
        os.close(root)


def _remove_names(root: int) -> None:
    """Remove all names of streams, then all of images, each of them at once: half of them would be a broken repository.

    What they were becomes a leftover in staging, which the next command that writes removes if this one cannot.
    """
    with Descriptor(open_or_make_directory("staging", root, 0o711)) as staging:
        for name in ("streams", "images"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(name, random_name(), src_dir_fd=root, dst_dir_fd=staging)
        sync_directory(root)
        sweep(staging)


def _require_places(root: int, path: str) -> None:
    """Raise CorruptError for what stands where the objects, or the new meta.json, have to be."""
    try:
        os.close(open_or_make_directory("objects", root))
    except NotADirectoryError as error:
        raise no_directory(f"{path}/objects") from error
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(metafile.META, dir_fd=root, follow_symlinks=False).st_mode):
            where = f"{path}/{metafile.META}"
            raise CorruptError(f"{where} is a directory", subject=where, hint="it must be a file; move it away")


def _write(at: int, path: str, meta: Meta, *, secure: bool) -> bool:
    """Make the directory with those above and below it and, as the last thing, meta.json; False if there is one.

    ``at`` is the nearest of them that is there already.
    """
    with metafile.prepared(at, meta, secure=secure) as new:
        _make_missing(path)
        with Descriptor(metafile.open_root(path)) as root:
            try:
                metafile.put_in_place(root, new.link)
            except FileExistsError:
                return False
    return True


def _make_missing(path: str) -> None:
    """Make a directory and those above it, or none of them if one cannot be made."""
    missing = [path]
    while not os.path.exists(above := os.path.dirname(missing[-1])):
        missing.append(above)
    made = []
    try:
        for each in reversed(missing):
            try:
                os.mkdir(each, 0o755)  # like all below: even without a umask nobody else may write
                made.append(each)
            except FileExistsError:
                if not os.path.isdir(each):  # else it was there, or somebody else was faster
                    raise
    except OSError:
        for each in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(each)
        raise


def _require_links(at: int, path: str) -> None:
    """Raise UnsupportedError where no names can be made: objects are hard links, all other names symlinks."""
    hard, soft = TEMPORARY_PREFIX + random_name(), TEMPORARY_PREFIX + random_name()
    with NewFile(at) as new:
        try:
            new.link(at, hard)
            os.unlink(hard, dir_fd=at)
            os.symlink(hard, soft, dir_fd=at)
            os.unlink(soft, dir_fd=at)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.ERANGE):
                raise
            raise UnsupportedError(
                f"no repository can be made at {path}: its file system has no hard links, or no symlinks",
                hint="name a place on another one, such as ext4, xfs or btrfs",
                subject=path,
            ) from error


def _require_upgrade(path: str, upgrade: bool) -> None:
    if not upgrade:
        raise ExistsError(
            f"{path} is a repository without {metafile.META}, from before composefs-rs 0.7",
            subject=path,
            hint="upgrade it with --ensure",
        )


def _require_like(
    path: str, existing: metafile.State, algorithm: Algorithm, erofs_default: int | None, insecure: bool
) -> None:
    """Raise ExistsError unless what exists is what was asked for."""
    if existing.meta.algorithm != algorithm:
        raise ExistsError(f"{path} is a repository with {existing.meta.algorithm.meta_name}", subject=path)
    if erofs_default not in (None, existing.meta.erofs_default):
        raise ExistsError(f"{path} is a repository with EROFS format {existing.meta.erofs_default}", subject=path)
    if not existing.secure and not insecure:
        raise ExistsError(f"{path} is an insecure repository", subject=path, hint="say --insecure to accept it")
