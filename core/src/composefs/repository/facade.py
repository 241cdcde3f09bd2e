"""Opening and making repositories."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from composefs import fsverity
from composefs.digest import Algorithm
from composefs.errors import (
    ComposefsError,
    ExistsError,
    FormatError,
    NotFoundError,
    ReadOnlyError,
    UnsupportedError,
    from_os_error,
)
from composefs.linux.files import NewFile, open_file, open_or_make_directory, sync_directory, write_all
from composefs.linux.locks import lock
from composefs.meta import MAX_META_SIZE, Meta
from composefs.repository.adoption import Objects
from composefs.repository.images import Images
from composefs.repository.publish import Publication, Published, Publisher
from composefs.repository.refs import Refs
from composefs.repository.staging import sweep
from composefs.repository.store import Store
from composefs.repository.streams import Streams

__all__ = ["Repository"]

_META = "meta.json"


class Repository:
    """An open repository, locked against garbage collection until it is closed; use it as a context manager.

    ``objects``, ``streams``, ``images`` and ``refs`` are its parts, ``meta`` its meta.json, ``store`` its directory.
    """

    def __init__(self, store: Store, meta: Meta) -> None:
        self.store = store
        self.meta = meta
        self.objects = Objects(store)
        self.refs = Refs(store)
        self.streams = Streams(store, self.objects, self.refs)
        self.images = Images(store, self.objects)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        algorithm: Algorithm | None = None,
        require_verity: bool = False,
        writable: bool = False,
        exclusive: bool = False,
        wait: float = 0.0,
    ) -> Self:
        """Open a repository.

        ``algorithm`` is what it must have, ``require_verity`` refuses an insecure one.  ``exclusive`` keeps everybody
        else out, as garbage collection must; ``wait`` is for how many seconds to wait for the lock.  Raises
        NotFoundError, BusyError, FormatError, UnsupportedError and, for
        ``writable``, ReadOnlyError, before anything is done.
        """
        path = Path(os.path.abspath(path))
        root = _open_root(path)
        store: Store | None = None
        try:
            lock(root, f"the repository {path}", exclusive=exclusive, wait=wait, hint="wait for it with --wait SECONDS")
            meta, secure = _read_meta(root, path)
            if algorithm is not None and meta.algorithm != algorithm:
                raise FormatError(f"the repository {path} uses {meta.algorithm}, not {algorithm}", subject=str(path))
            if require_verity and not secure:
                raise UnsupportedError(
                    f"the repository {path} is insecure: it does not demand fs-verity", subject=str(path)
                )
            if writable:
                _require_write_access(root, path, meta)
            store = Store(path, root, meta.algorithm, secure=secure, writable=writable)
            if writable:
                sweep(store.scratch)
            return cls(store, meta)
        except BaseException:
            if store:
                store.close()
            else:
                os.close(root)
            raise

    @staticmethod
    def init(
        path: str | os.PathLike[str],
        *,
        algorithm: Algorithm,
        erofs_default: int | None = None,
        erofs_extra: tuple[int, ...] = (),
        insecure: bool = False,
    ) -> Literal["initialized", "already"]:
        """Make a repository, with the directories above it, or find that there is one like it already.

        A secure one fails where the file system has no fs-verity (UnsupportedError).  A repository with another
        algorithm or another default EROFS format (None takes any, and makes 1), or an insecure one where a secure one
        is asked for, raises ExistsError.
        """
        path = Path(os.path.abspath(path))
        try:
            os.makedirs(path, exist_ok=True)
            root = _open_root(path)
            try:
                lock(root, f"the directory {path}", exclusive=False)
                meta = Meta.new(algorithm, 1 if erofs_default is None else erofs_default, erofs_extra)
                if _make(root, path, meta, insecure=insecure):
                    return "initialized"
                existing, secure = _read_meta(root, path)
            finally:
                os.close(root)
        except OSError as error:
            raise from_os_error(error, f"making the repository {path}") from error
        if existing.algorithm != algorithm:
            raise ExistsError(f"{path} is a repository with {existing.algorithm.meta_name}", subject=str(path))
        if erofs_default not in (None, existing.erofs_default):
            raise ExistsError(f"{path} is a repository with EROFS format {existing.erofs_default}", subject=str(path))
        if not secure and not insecure:
            raise ExistsError(
                f"{path} is an insecure repository", subject=str(path), hint="say --insecure to accept it"
            )
        return "already"

    @property
    def path(self) -> Path:
        """Where it is, absolute."""
        return self.store.path

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of its ids."""
        return self.store.algorithm

    @property
    def secure(self) -> bool:
        """Whether every object must have fs-verity."""
        return self.store.secure

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.store.writable

    def publish(self, publication: Publication) -> Published:
        """Make stored things visible; see :mod:`composefs.repository.publish`."""
        return Publisher(self.store, self.objects, self.streams, self.images, self.refs).publish(publication)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it and give up the lock."""
        self.store.close()


def _open_root(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise _no_repository(path) from error
        raise from_os_error(error, f"opening the repository {path}") from error


def _no_repository(path: Path) -> ComposefsError:
    return NotFoundError(
        f"there is no repository at {path}", subject=str(path), hint=f"make one with `cfsctl init {path}`"
    )


def _read_meta(root: int, path: Path) -> tuple[Meta, bool]:
    """Read meta.json, and tell whether it has fs-verity."""
    try:
        fd = open_file(_META, root)
    except FileNotFoundError as error:
        if os.path.isdir(path / "objects"):
            raise UnsupportedError(
                f"the repository {path} has no {_META}: it is from before composefs-rs 0.7",
                subject=str(path),
                hint="composefs-rs upgrades it with `cfsctl init --ensure`",
            ) from error
        raise _no_repository(path) from error
    except OSError as error:
        raise from_os_error(error, f"opening {path / _META}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_META_SIZE:
            raise FormatError(f"{path / _META} is no file of a plausible size", subject=str(path / _META))
        return Meta.parse(os.pread(fd, MAX_META_SIZE, 0)), fsverity.measure(fd) is not None
    except OSError as error:
        raise from_os_error(error, f"reading {path / _META}") from error
    finally:
        os.close(fd)


def _require_write_access(root: int, path: Path, meta: Meta) -> None:
    """Raise ReadOnlyError, with the reason, unless the repository can be written."""
    if unknown := meta.unknown_read_only_features:
        raise ReadOnlyError(
            f"the repository {path} has features that this program cannot keep up: {', '.join(unknown)}",
            subject=str(path),
            hint="use a newer composefs to write to it",
        )
    if os.fstatvfs(root).f_flag & os.ST_RDONLY:
        raise ReadOnlyError(f"the repository {path} is on a read-only file system", subject=str(path))
    for name in (".", "objects", "streams", "images"):
        try:
            os.stat(name, dir_fd=root)
        except FileNotFoundError:
            continue
        if not os.access(name, os.W_OK | os.X_OK, dir_fd=root, effective_ids=True):
            raise ReadOnlyError(
                f"no permission to write to {os.path.normpath(path / name)}",
                subject=str(path),
                hint="check the owner and mode, or run as root",
            )


def _make(root: int, path: Path, meta: Meta, *, insecure: bool) -> bool:
    """Make the directories and, as the last thing, meta.json; False if that exists.  Raises ``OSError``."""
    names = os.listdir(root)
    if _META in names:
        return False
    if "objects" in names:
        _read_meta(root, path)  # raises: a repository that needs an upgrade
    with NewFile(root, 0o644) as new:
        write_all(new.fd, meta.serialize())
        if not insecure:
            new.reopen_read_only()
            fsverity.enable(new.fd, meta.algorithm)
        for name in ("objects", "streams", "images"):
            os.close(open_or_make_directory(name, root))
        os.fsync(new.fd)
        try:
            new.link(root, _META)
        except FileExistsError:
            return False
    sync_directory(root)
    return True
