"""Making repositories, bringing old ones up to date, and starting anew with the objects that are there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Literal

from composefs.digest import Algorithm
from composefs.errors import (
    ComposefsError,
    CorruptError,
    ExistsError,
    NotFoundError,
    UnsupportedError,
)
from composefs.imageformats import DEFAULT_EROFS_FORMAT
from composefs.linux.closing import Descriptor
from composefs.linux.files import NewFile, absolute, open_or_make_directory, random_name, sync_directory
from composefs.meta import Meta
from composefs.repository import metafile
from composefs.repository.names import TEMPORARY_PREFIX
from composefs.repository.staging import sweep
from composefs.repository.store import no_directory
from composefs.systemerrors import from_os_error

__all__ = ["init", "reset"]

_ATTEMPTS = 10
_REMOVAL_SECONDS = 1.0


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

    A directory that it has made and then cannot use is gone again, unless somebody else uses it by then.
    """
    path = absolute(path)
    try:
        with _made_directory(path, wait) as root:
            legacy = None if metafile.is_there(root) else metafile.read_legacy(root, path)
            if not metafile.is_there(root):  # asked again: who has made it in between may have stored objects already
                state = legacy or metafile.State(Meta(algorithm, DEFAULT_EROFS_FORMAT), not insecure, legacy=False)
                if state.legacy:
                    _require_upgrade(path, upgrade)
                    _require_like(path, state, algorithm, None, insecure)
                meta = state.meta if erofs_default is None else Meta(algorithm, erofs_default)
                _require_links(root, path)
                if metafile.write(root, meta, secure=state.secure):
                    return "upgraded" if state.legacy else "initialized"
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
    erofs_default: int,
    insecure: bool = False,
    wait: float = 0.0,
) -> None:
    """Remove all names of streams and images and write a new meta.json; the objects stay.

    meta.json may be damaged.  Raises NotFoundError for a directory that is no repository, ExistsError when the objects
    have another algorithm, BusyError, and what :func:`init` raises; then the names are still there.
    """
    path = absolute(path)
    root = metafile.open_root(path)
    try:
        metafile.lock_root(root, f"the repository {path}", exclusive=True, wait=wait)
        objects = metafile.read_legacy(root, path)
        if objects is None and not metafile.is_there(root):
            raise metafile.no_repository(path)
        if objects is not None and objects.meta.algorithm != algorithm:
            has = objects.meta.algorithm
            raise ExistsError(f"{path} has {has} objects", subject=path, hint=f"say --algorithm {has.meta_name}")
        # What cannot be had shows before anything is removed.  Then names first: the old meta.json without any of them
        # is a repository too.
        with metafile.prepared(root, Meta(algorithm, erofs_default), secure=not insecure) as new:
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

    The directory of the names becomes a leftover in staging; if it cannot be removed here, the next command that writes
    does that.
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


@contextlib.contextmanager
def _made_directory(path: str, wait: float) -> Iterator[int]:
    """Open and lock a directory, having made it and those above it; after an error, remove those that were missing."""
    made: list[str] = []
    try:
        with Descriptor(_opened_directory(path, wait, made)) as root:
            yield root
    except BaseException:
        with contextlib.suppress(OSError, ComposefsError):
            for each in reversed(made):
                _remove_unused(each)
        raise


def _opened_directory(path: str, wait: float, made: list[str]) -> int:
    """Open and lock a directory, making it and those above it, which go into ``made``.

    Who has made it at the same time and cannot use it removes it again, maybe just now: then it is made once more.
    """
    attempts = _ATTEMPTS
    while True:
        attempts -= 1
        try:
            _make_missing(path, made)
            return _locked_directory(path, wait)
        except (FileNotFoundError, NotFoundError):
            if not attempts:
                raise


def _locked_directory(path: str, wait: float) -> int:
    """Open and lock a directory; NotFoundError if it is removed meanwhile."""
    root = metafile.open_root(path)
    try:
        # No garbage is collected where nothing is: who has it locked is about to remove it.
        patience = wait if os.listdir(root) else max(wait, _REMOVAL_SECONDS)
        metafile.lock_root(root, f"the directory {path}", exclusive=False, wait=patience)
        if not os.path.samestat(os.fstat(root), os.stat(path)):
            raise metafile.no_repository(path)
    except BaseException:
        os.close(root)
        raise
    return root


def _make_missing(path: str, made: list[str]) -> None:
    missing = [path]
    while not os.path.exists(above := os.path.dirname(missing[-1])):
        missing.append(above)
    for each in reversed(missing):
        try:
            os.mkdir(each, 0o755)  # like all below: even without a umask nobody else may write
            made.append(each)
        except FileExistsError:  # the directory may be there, or somebody else was faster
            if each == path and not os.path.isdir(path) and os.path.lexists(path):
                raise


def _remove_unused(path: str) -> None:
    """Remove a directory that is empty; ``OSError`` or BusyError if it is not, or somebody is about to fill it."""
    with Descriptor(metafile.open_root(path)) as root:
        metafile.lock_root(root, f"the directory {path}", exclusive=True, wait=0.0)
        os.rmdir(path)


def _require_links(root: int, path: str) -> None:
    """Raise UnsupportedError where no names can be made: objects are hard links, all other names symlinks."""
    hard, soft = TEMPORARY_PREFIX + random_name(), TEMPORARY_PREFIX + random_name()
    with NewFile(root) as new:
        try:
            new.link(root, hard)
            os.unlink(hard, dir_fd=root)
            os.symlink(hard, soft, dir_fd=root)
            os.unlink(soft, dir_fd=root)
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
    has, format_ = existing.meta.algorithm.meta_name, existing.meta.erofs_default
    if existing.meta.algorithm != algorithm:
        raise ExistsError(
            f"{path} is a repository with {has}",
            subject=path,
            hint=f"say --algorithm {has} to accept it, or name another place",
        )
    if erofs_default not in (None, format_):
        raise ExistsError(
            f"{path} is a repository with EROFS format {format_}",
            subject=path,
            hint=f"say --erofs-version {format_} to accept it, or name another place; the format of each image is "
            "chosen by cfsctl --erofs-version",
        )
    if not existing.secure and not insecure:
        raise ExistsError(f"{path} is an insecure repository", subject=path, hint="say --insecure to accept it")
