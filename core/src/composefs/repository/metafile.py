"""The file meta.json of a repository: how it is read and written, and what stands for it where there is none.

fs-verity on meta.json is what makes a repository secure, so it is enabled before the file gets its name.  Repositories
made by composefs-rs before 0.7 have no meta.json: the length of their objects' names tells the algorithm, and their
images have EROFS format 2.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from composefs.digest import ALGORITHMS, Algorithm, parse_id
from composefs.errors import FormatError, NotFoundError
from composefs.linux import verity
from composefs.linux.closing import Descriptor
from composefs.linux.files import (
    NewFile,
    open_directory,
    open_file,
    open_or_make_directory,
    sync_fully,
    write_all,
)
from composefs.linux.locks import lock
from composefs.meta import MAX_META_SIZE, Meta
from composefs.repository.store import not_regular
from composefs.systemerrors import Doing, from_os_error
from composefs.tuples import NamedTuple

__all__ = [
    "META",
    "State",
    "is_there",
    "lock_root",
    "no_repository",
    "open_root",
    "prepared",
    "put_in_place",
    "read",
    "read_legacy",
    "write",
]

META = "meta.json"
LEGACY_EROFS_FORMAT = 2

_PREFIXES = frozenset(f"{number:02x}" for number in range(256))


class State(NamedTuple):
    """What a repository is.

    ``meta`` is its meta.json or, in a ``legacy`` repository, which has none, what stands for it; ``secure`` tells
    whether every object must have fs-verity.
    """

    meta: Meta
    secure: bool
    legacy: bool


def open_root(path: str) -> int:
    """Open the directory of a repository."""
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise no_repository(path) from error
        raise from_os_error(error, f"opening the repository {path}") from error


def lock_root(
    root: int, what: str, *, exclusive: bool, wait: float, interrupted: Callable[[], bool] | None = None
) -> None:
    """Lock the directory of a repository; the arguments and errors are those of :func:`composefs.linux.locks.lock`."""
    hint = "wait for it with --wait SECONDS"
    lock(root, what, exclusive=exclusive, wait=wait, hint=hint, interrupted=interrupted)


def no_repository(path: str) -> NotFoundError:
    """Make the error for a directory that is no repository."""
    from shlex import quote

    hint = f"make one with `cfsctl init {quote(path)}`"
    return NotFoundError(f"there is no repository at {path}", subject=path, hint=hint)


def is_there(root: int) -> bool:
    """Tell whether a directory has a meta.json."""
    return os.access(META, os.F_OK, dir_fd=root)


def read(root: int, path: str) -> State:
    """Read the repository's state from its directory ``root``; ``path`` is for messages.

    Raises NotFoundError for a directory that is no repository, FormatError and UnsupportedError.
    """
    try:
        fd = open_file(META, root)
    except FileNotFoundError as error:
        legacy = read_legacy(root, path)
        if legacy is None:
            raise no_repository(path) from error
        if not is_there(root):
            return legacy
        return read(root, path)  # it has been made in between, and objects were stored in it
    except OSError as error:
        if odd := not_regular(META, root):
            raise _malformed(path, f"it is {odd}") from error
        raise from_os_error(error, f"opening {path}/{META}") from error
    with Doing(f"reading {path}/{META}"), Descriptor(fd):
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_META_SIZE:
            raise _malformed(path, "it is no file of a plausible size")
        try:
            meta = Meta.parse(os.pread(fd, MAX_META_SIZE, 0))
        except FormatError as error:
            raise _malformed(path, error.message) from error
        return State(meta, verity.measure(fd) is not None, legacy=False)


def _malformed(path: str, reason: str) -> FormatError:
    return FormatError(
        f"{path}/{META}: {reason}",
        subject=f"{path}/{META}",
        hint="put its meta.json back, or that of a repository made by `cfsctl init` with the same options",
    )


def read_legacy(root: int, path: str) -> State | None:
    """Describe what is in ``objects/`` where there is no meta.json; None if that holds no object.

    The first object speaks for all: for the algorithm, and whether they have fs-verity.
    """
    with Doing(f"looking at the objects of {path}"):
        for prefix, rest in _objects(root):
            algorithm = next((each for each in ALGORITHMS.values() if _is_id(prefix + rest, each)), None)
            if algorithm is not None:
                with Descriptor(open_file(f"objects/{prefix}/{rest}", root)) as fd:
                    secure = verity.measure(fd) is not None
                return State(Meta(algorithm, LEGACY_EROFS_FORMAT), secure, legacy=True)
    return None


def _objects(root: int) -> Iterator[tuple[str, str]]:
    """Yield (XX, REST) of files in ``objects/``; what else is there is fsck's to tell."""
    try:
        objects = open_directory("objects", root)
    except (FileNotFoundError, NotADirectoryError):
        return
    with Descriptor(objects):
        for prefix in sorted(_PREFIXES.intersection(os.listdir(objects))):
            try:
                fd = open_directory(prefix, objects)
            except NotADirectoryError:
                continue
            with Descriptor(fd):
                for name in sorted(os.listdir(fd)):
                    if stat.S_ISREG(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                        yield prefix, name


def _is_id(text: str, algorithm: Algorithm) -> bool:
    try:
        parse_id(text, algorithm)
    except FormatError:
        return False
    return True


def write(root: int, meta: Meta, *, secure: bool) -> bool:
    """Make the directories and, as the last thing, meta.json; False if there is one already.

    Where fs-verity is wanted and cannot be had, nothing is made.  Raises ``OSError`` and UnsupportedError.
    """
    with prepared(root, meta, secure=secure) as new:
        try:
            put_in_place(root, new.link)
        except FileExistsError:
            return False
    return True


@contextmanager
def prepared(root: int, meta: Meta, *, secure: bool) -> Iterator[NewFile]:
    """Make a meta.json that has no name yet, sealed with fs-verity if it is wanted; for :func:`put_in_place`."""
    with NewFile(root, 0o644) as new:
        write_all(new.fd, meta.serialize())
        if secure:
            new.reopen_read_only()
            verity.enable(new.fd, meta.algorithm)
        sync_fully(new.fd)
        yield new


def put_in_place(root: int, name: Callable[[int, str], None]) -> None:
    """Make the directories of a repository and, as the last thing, ``name`` its meta.json."""
    for directory in ("objects", "streams", "images"):
        os.close(open_or_make_directory(directory, root))
    name(root, META)
    sync_fully(root)
